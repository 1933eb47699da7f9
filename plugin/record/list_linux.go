package record

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

// staleAfter is the age at which a temporary file has no writer any more: a plugin lives for seconds.
const staleAfter = time.Hour

// List reads all records, sorted by file name. Whatever claims to be a record and cannot be read is named in the
// errors; temporary files and names that are not ours are passed over. A missing directory is an empty one.
func (s Store) List() ([]Record, []error) {
	entries, err := s.entries()
	if err != nil {
		return nil, []error{err}
	}
	var records []Record
	var errs []error
	for _, entry := range entries {
		if !IsFile(entry.Name()) {
			continue
		}
		switch r, err := s.Load(entry.Name()); {
		case err == nil:
			records = append(records, r)
		case !errors.Is(err, fs.ErrNotExist): // a DEL may have been faster
			errs = append(errs, err)
		}
	}
	return records, errs
}

// GC removes the records of the named network whose attachment is not valid, and returns them. Records of other
// networks stay, as do those that cannot be read, since nobody knows whose they are: they are in the error. One error
// does not stop the rest. Temporary files that a killed plugin left more than an hour ago go too.
func (s Store) GC(network string, valid func(containerID, ifname string) bool) (removed []Record, err error) {
	records, errs := s.List()
	for _, r := range records {
		if r.Network != network || valid(r.ContainerID, r.IfName) {
			continue
		}
		name, _ := fileName(r.ContainerID, r.IfName) // List has checked it
		if err := s.remove(name); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, r)
	}
	return removed, errors.Join(append(errs, s.removeStale())...)
}

// removeStale removes temporary files older than staleAfter.
func (s Store) removeStale() error {
	entries, err := s.entries()
	if err != nil {
		return nil // List has reported it
	}
	var errs []error
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), tempPrefix) {
			continue
		}
		info, err := entry.Info()
		if err != nil || !info.Mode().IsRegular() || time.Since(info.ModTime()) < staleAfter {
			continue
		}
		errs = append(errs, s.remove(entry.Name()))
	}
	return errors.Join(errs...)
}

// entries lists the directory by name; a missing one is empty.
func (s Store) entries() ([]fs.DirEntry, error) {
	entries, err := os.ReadDir(s.Pods())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing records in %q: %w", s.Pods(), unpath(err))
	}
	return entries, nil
}

package record

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

// staleAfter is the age after which a temporary file is removed: it has no writer any more, for a plugin runs for
// seconds, and a runtime gives it minutes at most. If it has one all the same, the writer's Put fails.
const staleAfter = 5 * time.Minute

// List returns all records, sorted by file name, and an error for each record that cannot be read. It ignores temporary
// files and names that are not a record's. A missing directory counts as empty.
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
		case !errors.Is(err, fs.ErrNotExist): // unless a DEL has just removed it
			errs = append(errs, err)
		}
	}
	return records, errs
}

// GC removes the records of the network for whose attachment valid returns false, and returns them. It keeps records of
// other networks, and those that it cannot read, because their network is unknown: the error names them. It continues
// after an error. It also calls RemoveStale.
func (s Store) GC(network string, valid func(containerID, ifname string) bool) (removed []Record, err error) {
	records, errs := s.List()
	for _, r := range records {
		if r.Network != network || valid(r.ContainerID, r.IfName) {
			continue
		}
		name, _ := fileName(r.ContainerID, r.IfName) // List has validated it
		if err := s.remove(name); err != nil {
			errs = append(errs, err)
			continue
		}
		removed = append(removed, r)
	}
	return removed, errors.Join(append(errs, s.RemoveStale())...)
}

// RemoveStale removes temporary files that are older than five minutes, left by a plugin that was killed.
func (s Store) RemoveStale() error {
	entries, err := s.entries()
	if err != nil {
		return nil // List has reported the error
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

// entries lists the directory by name. It returns none if the directory is missing.
func (s Store) entries() ([]fs.DirEntry, error) {
	entries, err := os.ReadDir(s.Pods())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing records in %q: %w", s.Pods(), unpath(err))
	}
	return entries, nil
}

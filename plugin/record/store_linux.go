package record

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/istio-pod-network/controller/internal/files"
)

// podsDir is the directory of the records in the state directory.
const podsDir = "pods"

// Names returns the names of everything in a state directory, for others that use the same directory.
func Names() []string { return []string{podsDir, problemFile} }

// Store is the directory of records. Any number of processes may call its methods at once.
type Store struct {
	Dir string // stateDir of the CNI configuration; the first Put creates it
}

// Pods returns the directory of the record files, for a watcher. It may not exist yet.
func (s Store) Pods() string { return filepath.Join(s.Dir, podsDir) }

// Get returns the record of one attachment. For its error, errors.Is(err, fs.ErrNotExist) holds if there is none,
// IsVersion if the record has another version, and IsMismatch if the file contains another attachment's record.
func (s Store) Get(containerID, ifname string) (Record, error) {
	name, err := fileName(containerID, ifname)
	if err != nil {
		return Record{}, fmt.Errorf("reading record: %w", err)
	}
	return s.read(name, containerID, ifname)
}

// Load returns the record in the file with that name, which a watcher of Pods has seen. Its errors are those of Get.
func (s Store) Load(name string) (Record, error) {
	if filepath.Base(name) != name || !IsFile(name) {
		return Record{}, fmt.Errorf("reading record %q: not the file name of a record", name)
	}
	return s.read(name, "", "")
}

// read reads the named file, and compares its contents with its name and, unless empty, with the given attachment.
func (s Store) read(name, containerID, ifname string) (Record, error) {
	path := filepath.Join(s.Pods(), name)
	data, err := files.ReadNoFollow(path, maxSize)
	if err != nil {
		return Record{}, fmt.Errorf("reading record %q: %w", path, unpath(err))
	}
	r, err := parse(data)
	if err != nil {
		return Record{}, fmt.Errorf("reading record %q: %w", path, err)
	}
	own, _ := fileName(r.ContainerID, r.IfName)
	if own != name || containerID != "" && (r.ContainerID != containerID || r.IfName != ifname) {
		return Record{}, fmt.Errorf("reading record %q: %w", path, &mismatchError{r.ContainerID, r.IfName})
	}
	return r, nil
}

// Delete removes the record of one attachment. A missing record is not an error. Nothing is synced: a record that comes
// back after a power failure belongs to no network namespace any more, and the agent removes it.
func (s Store) Delete(containerID, ifname string) error {
	name, err := fileName(containerID, ifname)
	if err != nil {
		return fmt.Errorf("deleting record: %w", err)
	}
	if ambiguous(containerID, ifname) {
		if _, err := s.read(name, containerID, ifname); IsMismatch(err) {
			return nil
		}
	}
	return s.remove(name)
}

// remove unlinks one file. os.Remove would also try rmdir(2) after a failed unlink(2).
func (s Store) remove(name string) error {
	path := filepath.Join(s.Pods(), name)
	if err := syscall.Unlink(path); err != nil && err != syscall.ENOENT {
		return fmt.Errorf("deleting record %q: %w", path, err)
	}
	return nil
}

// unpath removes the operation and the path from a file error, where the caller names the path.
func unpath(err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

package record

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/istio-pod-network/controller/internal/files"
)

// podsDir is the directory of the record files, in the state directory.
const podsDir = "pods"

// Names are those of all that is in a state directory, for whoever shares it.
func Names() []string { return []string{podsDir, problemFile} }

// Store is the directory of records. Its methods may be called at once from any number of processes.
type Store struct {
	Dir string // stateDir of the CNI configuration; made on the first Put
}

// Pods is the directory the record files are in, for a watcher. It may not exist yet.
func (s Store) Pods() string { return filepath.Join(s.Dir, podsDir) }

// Get reads the record of one attachment. The error satisfies errors.Is(err, fs.ErrNotExist) when there is none,
// IsVersion when it is of another version, and IsMismatch when the file holds another attachment's record.
func (s Store) Get(containerID, ifname string) (Record, error) {
	name, err := fileName(containerID, ifname)
	if err != nil {
		return Record{}, fmt.Errorf("reading record: %w", err)
	}
	return s.read(name, containerID, ifname)
}

// Load reads the record with that file name, as List and a watcher of Pods see it. Its errors are Get's.
func (s Store) Load(name string) (Record, error) {
	if filepath.Base(name) != name || !IsFile(name) {
		return Record{}, fmt.Errorf("reading record %q: not the file name of a record", name)
	}
	return s.read(name, "", "")
}

// read reads the named file and holds its contents against its name and, unless empty, the wanted attachment.
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

// Delete removes the record of one attachment. No record is no error, and costs a single system call. Nothing is
// synced: a record that comes back after a power failure has no network namespace any more, and the agent drops it.
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

// remove unlinks one file. It is not os.Remove, which tries rmdir after a failed unlink.
func (s Store) remove(name string) error {
	path := filepath.Join(s.Pods(), name)
	if err := syscall.Unlink(path); err != nil && err != syscall.ENOENT {
		return fmt.Errorf("deleting record %q: %w", path, err)
	}
	return nil
}

// unpath drops the operation and path of a file error, where the caller names the path.
func unpath(err error) error {
	var e *fs.PathError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

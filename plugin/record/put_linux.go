package record

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/istio-pod-network/controller/internal/excerpt"
	"github.com/istio-pod-network/controller/internal/files"
)

// Put writes the record of one attachment with mode 0600, replacing the one that is there. The directory is made, with
// mode 0700, when it is missing. On an error nothing new is left behind, neither under the final name nor elsewhere.
//
// It runs in every ADD of a mesh pod, so it tries to write before it makes a directory, and does no more with files
// than safety takes: open, write, fsync and close of the file, rename, open, fsync and close of the directory.
func (s Store) Put(r Record) error {
	data, err := encode(r)
	if err != nil {
		return fmt.Errorf("writing record of container %s interface %s: %w",
			excerpt.Quote(r.ContainerID), excerpt.Quote(r.IfName), err)
	}
	name, _ := fileName(r.ContainerID, r.IfName) // encode has checked it
	path := filepath.Join(s.Pods(), name)
	if ambiguous(r.ContainerID, r.IfName) {
		if _, err := s.read(name, r.ContainerID, r.IfName); IsMismatch(err) {
			return fmt.Errorf("writing record of container %q interface %q: %w", r.ContainerID, r.IfName, err)
		}
	}
	temp, err := s.writeTemp(data)
	if err != nil {
		return fmt.Errorf("writing record %q: %w", path, err)
	}
	if err := commit(temp, path); err != nil {
		return fmt.Errorf("writing record %q: %w", path, err)
	}
	return nil
}

// writeTemp writes data to a new temporary file beside the records and returns its path.
func (s Store) writeTemp(data []byte) (string, error) {
	temp := files.Temp(s.Pods(), tempPrefix)
	err := files.Create(temp, bytes.NewReader(data), nil)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(s.Pods(), 0o700); err != nil {
			return "", err
		}
		err = files.Create(temp, bytes.NewReader(data), nil)
	}
	return temp, err
}

// commit gives the temporary file its final name, for good: without the fsync of the directory the name may be lost in
// a crash.
func commit(temp, path string) error {
	if err := files.Rename(temp, path); err != nil {
		return err
	}
	if err := files.SyncDir(filepath.Dir(path)); err != nil {
		_ = syscall.Unlink(path) // ADD fails and takes its rules back, so the record must not speak for them
		return err
	}
	return nil
}

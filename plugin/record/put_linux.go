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

// Put writes the record of one attachment with mode 0600, and replaces an existing one. It creates the directory with
// mode 0700 if it is missing. On an error it leaves no new file.
//
// It runs in every ADD of a mesh pod, so it creates the directory only if writing fails, and makes only the system
// calls that safety needs: open, write, fsync and close for the file, rename, then open, fsync and close for the
// directory.
func (s Store) Put(r Record) error {
	data, err := encode(r)
	if err != nil {
		return fmt.Errorf("writing record of container %s interface %s: %w",
			excerpt.Quote(r.ContainerID), excerpt.Quote(r.IfName), err)
	}
	name, _ := fileName(r.ContainerID, r.IfName) // encode has validated it
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

// writeTemp writes data to a new temporary file in the directory of the records, and returns its path.
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

// commit renames the temporary file to path, durably: without the fsync of the directory a crash may lose the name.
func commit(temp, path string) error {
	if err := files.Rename(temp, path); err != nil {
		return err
	}
	if err := files.SyncDir(filepath.Dir(path)); err != nil {
		_ = syscall.Unlink(path) // ADD fails and removes its rules, so no record may describe them
		return err
	}
	return nil
}

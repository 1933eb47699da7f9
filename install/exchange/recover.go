package exchange

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Recover removes what a killed installer has left in a directory, and completes an exchange that it has not checked.
// The caller holds the lock, so nothing in it belongs to a running installer. Lock calls Recover.
//
// The name of an exchange's temporary file has the hashes of the former contents and of our edit. If the file has
// neither, and the configuration has our edit, the exchange has taken place, and the file is an update that its owner
// made between our read and our exchange: it gets its name back. Any other temporary file is an incomplete edit or the
// former contents, and is removed.
func Recover(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch path := filepath.Join(dir, e.Name()); {
		case strings.HasPrefix(e.Name(), swapName):
			err = errors.Join(err, finish(path, entries))
		case strings.HasPrefix(e.Name(), tempName):
			err = errors.Join(err, Remove(path))
		}
	}
	return err
}

// finish completes one exchange, given its temporary file.
func finish(temp string, entries []fs.DirEntry) error {
	hashes := strings.Split(strings.TrimPrefix(filepath.Base(temp), swapName), ".")
	left, err := Read(temp)
	if err != nil {
		return err
	}
	cameOut := len(hashes) == 3 && sum(left) != hashes[1] && sum(left) != hashes[2]
	for _, e := range entries {
		if !cameOut || sum([]byte(e.Name())) != hashes[0] {
			continue
		}
		path := filepath.Join(filepath.Dir(temp), e.Name())
		current, err := Read(path)
		if err == nil && sum(current) == hashes[2] {
			s := swap{path: path, temp: temp, fresh: current}
			return s.settle(func(existing []byte) ([]byte, error) { return existing, nil })
		}
	}
	if err := unix.Unlink(temp); err != nil && !errors.Is(err, unix.ENOENT) {
		return &fs.PathError{Op: "remove", Path: temp, Err: err}
	}
	return nil
}

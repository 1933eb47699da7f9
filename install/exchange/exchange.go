// Package exchange changes files that others own and write whenever they like. Every file appears whole or not at all,
// and an edit exchanges two names instead of replacing one. So the former file is kept, and if it is not what the edit
// was made from, its owner has updated it, and the edit is made again from that. No update is lost, also when the
// process is killed at that moment: the next process finds what was exchanged (Recover).
//
// The caller holds the Lock of the directory in which it changes something.
package exchange

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/istio-pod-network/controller/internal/files"
	"golang.org/x/sys/unix"
)

// Hidden is how the names of our files beside the configurations start. It must not change: Recover looks for files
// that an older release has left.
const Hidden = ".istio-pod-network-"

// Names of temporary files. None ends in .conf, .conflist or .json, so no runtime reads it.
const (
	tempName = Hidden + "tmp."
	swapName = Hidden + "swap."
)

// maxSize bounds what is read as a configuration, in bytes.
const maxSize = 4 << 20

// Errors that a caller may want to tell from others.
var (
	ErrBusy       = errors.New("somebody is writing it")
	ErrNoExchange = errors.New("the file system cannot exchange two names (renameat2 RENAME_EXCHANGE), " +
		"without which an update by the primary CNI could be lost")
)

// Read reads a configuration file.
func Read(path string) ([]byte, error) { return files.Read(path, maxSize) }

// ReadClosed waits until nobody has the file open for writing, and reads it. The error is ErrBusy if that takes more
// than 2 s.
func ReadClosed(path string) ([]byte, error) {
	if !writersGone(path) {
		return nil, fmt.Errorf("reading %q: %w", path, ErrBusy)
	}
	return Read(path)
}

// Write writes a file that is ours alone, by a rename in its directory. It replaces whatever has that name. attributes
// may be nil, for mode 0600.
func Write(path string, contents io.Reader, attributes func(*os.File) error) error {
	return WriteVia(filepath.Dir(path), path, contents, attributes)
}

// WriteVia is Write by a rename from the directory dir, which is on the same file system.
func WriteVia(dir, path string, contents io.Reader, attributes func(*os.File) error) error {
	return files.Replace(path, files.Temp(dir, tempName), contents, attributes)
}

// Remove removes a file durably. It is no error if there is none.
func Remove(path string) error {
	switch err := unix.Unlink(path); {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return nil
	case errors.Is(err, unix.EROFS) && isNotThere(path): // which the kernel says before it looks (fs/namei.c, do_unlinkat)
		return nil
	case err != nil:
		return &fs.PathError{Op: "remove", Path: path, Err: err}
	}
	return files.SyncDir(filepath.Dir(path))
}

func isNotThere(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// RemoveVia moves a file into the directory dir, which is on the same file system, and removes it there.
func RemoveVia(dir, path string) error {
	temp := files.Temp(dir, tempName)
	if err := unix.Rename(path, temp); err != nil {
		return &os.LinkError{Op: "rename", Old: path, New: temp, Err: err}
	}
	if err := files.SyncDir(filepath.Dir(path)); err != nil {
		return err
	}
	return Remove(temp)
}

// RemoveIf removes a file if it still has these contents. If somebody has changed it, it stays, and the error is
// ErrBusy.
func RemoveIf(path string, contents []byte) error {
	temp := files.Temp(filepath.Dir(path), tempName)
	if err := Move(path, temp); err != nil {
		return err
	}
	writersGone(temp)
	if now, err := Read(temp); err != nil || !bytes.Equal(now, contents) {
		return errors.Join(fmt.Errorf("removing %q: %w", path, ErrBusy), err, Move(temp, path))
	}
	return Remove(temp)
}

// Move is rename(2) that never replaces a file.
func Move(from, to string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// Touch makes a file in a directory and removes it, so that whoever watches the directory notices a change.
func Touch(dir string) error {
	path := files.Temp(dir, tempName)
	if err := files.Create(path, bytes.NewReader(nil), nil); err != nil {
		return err
	}
	return Remove(path)
}

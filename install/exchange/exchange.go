// Package exchange edits files that others own and write at any time. Every file appears complete or not at all. An
// edit exchanges two names (renameat2(2), RENAME_EXCHANGE) instead of replacing a file, so the former file is kept. If
// that is not the file from which the edit was made, its owner has updated it, and the edit is made again from the
// update. No update is lost, even if the process is killed: the next one finds what was exchanged (Recover).
//
// The caller holds the Lock of the directory.
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

// Hidden is the prefix of our files' names beside the configurations. It must not change: Recover looks for files of
// older releases.
const Hidden = ".istio-pod-network-"

// Prefixes of temporary files. Their names do not end in .conf, .conflist or .json, so no runtime reads them.
const (
	tempName = Hidden + "tmp."
	swapName = Hidden + "swap."
)

// maxSize limits the size of a configuration file, in bytes.
const maxSize = 4 << 20

// Errors that a caller may want to distinguish.
var (
	ErrBusy       = errors.New("somebody is writing it")
	ErrNoExchange = errors.New("the file system cannot exchange two names (renameat2 RENAME_EXCHANGE), " +
		"without which an update by the primary CNI could be lost")
)

// Read reads a configuration file. It returns an error for one of more than 4 MiB, and for what is not a regular file.
func Read(path string) ([]byte, error) { return files.Read(path, maxSize) }

// ReadClosed waits until nobody has the file open for writing, and reads it. If that takes more than 2 s, the error is
// ErrBusy.
func ReadClosed(path string) ([]byte, error) {
	if !writersGone(path) {
		return nil, fmt.Errorf("reading %q: %w", path, ErrBusy)
	}
	return Read(path)
}

// Write writes a file that only this installer writes, by a rename in its directory. It replaces an existing file.
// attributes sets mode, owner and extended attributes; nil means mode 0600.
func Write(path string, contents io.Reader, attributes func(*os.File) error) error {
	return WriteVia(filepath.Dir(path), path, contents, attributes)
}

// WriteVia is Write with the temporary file in dir, which must be on the same file system.
func WriteVia(dir, path string, contents io.Reader, attributes func(*os.File) error) error {
	return files.Replace(path, files.Temp(dir, tempName), contents, attributes)
}

// Remove removes a file durably. A missing file is not an error.
func Remove(path string) error {
	switch err := unix.Unlink(path); {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return nil
	case errors.Is(err, unix.EROFS) && isNotThere(path): // the kernel checks for EROFS first (fs/namei.c, do_unlinkat)
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

// RemoveVia moves a file to dir, which must be on the same file system, and removes it there.
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

// Move renames a file and never replaces one (renameat2(2), RENAME_NOREPLACE).
func Move(from, to string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// Touch creates and removes a file in a directory, so that a watcher of the directory notices a change.
func Touch(dir string) error {
	path := files.Temp(dir, tempName)
	if err := files.Create(path, bytes.NewReader(nil), nil); err != nil {
		return err
	}
	return Remove(path)
}

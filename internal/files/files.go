// Package files reads and replaces files safely. Reading ends, whatever somebody else has put there. A written file
// appears complete or not at all, and survives a power failure.
package files

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
)

// Read reads a regular file of at most limit bytes. For anything else it returns an *fs.PathError that says so. It does
// not block on a FIFO.
func Read(path string, limit int64) ([]byte, error) { return read(path, limit, 0) }

// ReadNoFollow is Read, but it returns an error if path is a symbolic link.
func ReadNoFollow(path string, limit int64) ([]byte, error) {
	return read(path, limit, syscall.O_NOFOLLOW)
}

func read(path string, limit int64, flags int) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|flags, 0) // opening a FIFO would wait for its writer
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	fail := func(format string, args ...any) ([]byte, error) {
		return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf(format, args...)}
	}
	if !info.Mode().IsRegular() {
		return fail("not a regular file")
	}
	var data bytes.Buffer
	data.Grow(int(min(info.Size(), limit)) + bytes.MinRead) // one read for the contents, and one for the end
	if _, err := data.ReadFrom(io.LimitReader(f, limit+1)); err != nil {
		return nil, err
	}
	if int64(data.Len()) > limit {
		return fail("larger than %d bytes", limit)
	}
	return data.Bytes(), nil
}

// Create writes a file that does not exist yet, and syncs its contents. The mode is 0600, unless attributes changes it
// before the sync; attributes may be nil. On an error it leaves no file.
func Create(path string, contents io.Reader, attributes func(*os.File) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, contents)
	if err == nil && attributes != nil {
		err = attributes(f)
	}
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		_ = syscall.Unlink(path)
	}
	return err
}

// Rename renames a temporary file, and replaces an existing file. If that fails, it removes the temporary file. The
// name is durable after SyncDir. It makes one system call; os.Rename also checks whether the target is a directory.
func Rename(temp, path string) error {
	if err := syscall.Rename(temp, path); err != nil {
		_ = syscall.Unlink(temp)
		return &os.LinkError{Op: "rename", Old: temp, New: path, Err: err}
	}
	return nil
}

// Replace writes the file path durably, by the temporary file temp on the same file system. It first removes a temp
// that a killed process has left.
func Replace(path, temp string, contents io.Reader, attributes func(*os.File) error) error {
	if err := syscall.Unlink(temp); err != nil && err != syscall.ENOENT {
		return &fs.PathError{Op: "remove", Path: temp, Err: err}
	}
	if err := Create(temp, contents, attributes); err != nil {
		return err
	}
	if err := Rename(temp, path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir syncs a directory, so that its names are durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Temp returns an unused path in dir: the prefix and a random number.
func Temp(dir, prefix string) string {
	return filepath.Join(dir, fmt.Sprintf("%s%016x", prefix, rand.Uint64()))
}

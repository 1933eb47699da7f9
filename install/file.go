package install

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Names of what lies beside the configurations. None ends in .conf, .conflist or .json, so no runtime reads it.
const (
	hidden      = "." + Type + "-"
	tempName    = hidden + "tmp."
	swapName    = hidden + "swap."
	asidePrefix = hidden + "original."
	asideSuffix = ".aside"
)

// maxConf bounds what is read as a configuration.
const maxConf = 4 << 20

// readConf reads a configuration file. O_NONBLOCK because opening a FIFO would hang.
func readConf(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%q is not a regular file", path)
	case info.Size() > maxConf:
		return nil, fmt.Errorf("%q is larger than %d bytes", path, maxConf)
	}
	return io.ReadAll(io.LimitReader(f, maxConf))
}

// writeNew writes a file that is not there yet, durably, with the mode, owner and extended attributes (SELinux label,
// ACL) of the file like, or with the mode alone if like is "". On an error nothing is left.
func writeNew(path string, contents io.Reader, mode fs.FileMode, like string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, contents)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil && like != "" {
		err = copyMeta(f, like)
	}
	if err == nil {
		err = f.Sync()
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err != nil {
		_ = unix.Unlink(path)
	}
	return err
}

// copyMeta gives f the owner, mode and extended attributes of another file.
func copyMeta(f *os.File, like string) error {
	var from, to unix.Stat_t
	if err := unix.Stat(like, &from); err != nil {
		return &fs.PathError{Op: "stat", Path: like, Err: err}
	}
	if err := unix.Fstat(int(f.Fd()), &to); err != nil {
		return &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if from.Uid != to.Uid || from.Gid != to.Gid {
		if err := f.Chown(int(from.Uid), int(from.Gid)); err != nil {
			return err
		}
	}
	if err := copyAttributes(f, like); err != nil {
		return err
	}
	// Last, because chown drops the set-uid bits and an ACL changes the group's. The file is open: no umask applies.
	if err := unix.Fchmod(int(f.Fd()), from.Mode&0o7777); err != nil {
		return &fs.PathError{Op: "chmod", Path: f.Name(), Err: err}
	}
	return nil
}

func copyAttributes(f *os.File, like string) error {
	names := make([]byte, 64<<10) // the kernel's limit, XATTR_LIST_MAX
	n, err := unix.Listxattr(like, names)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "listxattr", Path: like, Err: err}
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		if err := copyAttribute(f, like, name); err != nil {
			return err
		}
	}
	return nil
}

func copyAttribute(f *os.File, like, name string) error {
	want, have := make([]byte, 64<<10), make([]byte, 64<<10)
	n, err := unix.Getxattr(like, name, want)
	if err != nil {
		return &fs.PathError{Op: "getxattr " + name, Path: like, Err: err}
	}
	// A new file often has the right label already, and who may not set it need not.
	if m, err := unix.Fgetxattr(int(f.Fd()), name, have); err == nil && bytes.Equal(want[:n], have[:m]) {
		return nil
	}
	if err := unix.Fsetxattr(int(f.Fd()), name, want[:n], 0); err != nil {
		return &fs.PathError{Op: "setxattr " + name, Path: f.Name(), Err: err}
	}
	return nil
}

// replace writes a file that is ours alone, by a rename; nobody else's contents are looked for.
func replace(path string, contents io.Reader, mode fs.FileMode, like string) error {
	return replaceVia(filepath.Dir(path), path, contents, mode, like)
}

// replaceVia is replace with the temporary file in another directory of the same file system.
func replaceVia(dir, path string, contents io.Reader, mode fs.FileMode, like string) error {
	temp := filepath.Join(dir, tempName+unique())
	if err := writeNew(temp, contents, mode, like); err != nil {
		return err
	}
	if err := unix.Rename(temp, path); err != nil {
		_ = unix.Unlink(temp)
		return &os.LinkError{Op: "rename", Old: temp, New: path, Err: err}
	}
	return syncDir(filepath.Dir(path))
}

// remove unlinks a file for good; one that is absent is fine.
func remove(path string) error {
	switch err := unix.Unlink(path); {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return nil
	case err != nil:
		return &fs.PathError{Op: "remove", Path: path, Err: err}
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// move is rename(2) that never replaces a file.
func move(from, to string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// unique is the end of a temporary name. The lock keeps two installers apart; the name need only differ from one that a
// killed installer left.
func unique() string { return fmt.Sprintf("%d.%d", os.Getpid(), time.Now().UnixNano()) }

// sum is a short hash for names of temporary files.
func sum(data []byte) string {
	h := sha256.Sum256(data)
	return fmt.Sprintf("%x", h[:8])
}

// lock keeps two installers from working in one directory at once, by flock on the directory itself: nothing is left
// behind, whatever happens to the process.
func lock(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(lockWait); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { d.Close() }, nil
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			d.Close()
			return nil, fmt.Errorf("locking %q: another installer may be at work on it: %w", dir, err)
		}
	}
}

// lockWait is how long another installer may take.
const lockWait = 10 * time.Second

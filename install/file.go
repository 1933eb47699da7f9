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

	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/internal/files"
	"golang.org/x/sys/unix"
)

// Names of what lies beside the configurations. None ends in .conf, .conflist or .json, so no runtime reads it.
const (
	hidden      = "." + entry.Type + "-"
	tempName    = hidden + "tmp."
	swapName    = hidden + "swap."
	asidePrefix = hidden + "original."
	asideSuffix = ".aside"
)

// maxConf bounds what is read as a configuration.
const maxConf = 4 << 20

// readConf reads a configuration file.
func readConf(path string) ([]byte, error) { return files.Read(path, maxConf) }

// attributesOf gives a new file the mode, owner and extended attributes (SELinux label, ACL) of the file like.
func attributesOf(like string) func(*os.File) error {
	return func(f *os.File) error { return copyMeta(f, like) }
}

// mode gives a new file a mode, whatever the umask.
func mode(m fs.FileMode) func(*os.File) error {
	return func(f *os.File) error { return f.Chmod(m) }
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
func replace(path string, contents io.Reader, attributes func(*os.File) error) error {
	return replaceVia(filepath.Dir(path), path, contents, attributes)
}

// replaceVia is replace with the temporary file in another directory of the same file system.
func replaceVia(dir, path string, contents io.Reader, attributes func(*os.File) error) error {
	return files.Replace(path, files.Temp(dir, tempName), contents, attributes)
}

// remove unlinks a file for good; one that is absent is fine.
func remove(path string) error {
	switch err := unix.Unlink(path); {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return nil
	case err != nil:
		return &fs.PathError{Op: "remove", Path: path, Err: err}
	}
	return files.SyncDir(filepath.Dir(path))
}

// move is rename(2) that never replaces a file.
func move(from, to string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

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

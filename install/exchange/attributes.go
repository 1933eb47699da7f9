package exchange

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Like returns a function that gives a new file the mode, owner and extended attributes (SELinux label, ACL) of the
// file at like. It omits attributes that describe the contents, and those that this process may not set, except for an
// ACL: that is an error.
func Like(like string) func(*os.File) error {
	return func(f *os.File) error { return copyMeta(f, like) }
}

// Mode returns a function that sets a new file's mode, regardless of the umask.
func Mode(m fs.FileMode) func(*os.File) error {
	return func(f *os.File) error { return f.Chmod(m) }
}

// copyMeta gives f the owner, mode and extended attributes of the file at like.
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
	// The mode comes last, because chown(2) clears the set-uid bits and an ACL changes the group's bits. fchmod(2)
	// ignores the umask.
	if err := unix.Fchmod(int(f.Fd()), from.Mode&0o7777); err != nil {
		return &fs.PathError{Op: "chmod", Path: f.Name(), Err: err}
	}
	return nil
}

func copyAttributes(f *os.File, like string) error {
	names := make([]byte, 64<<10) // XATTR_LIST_MAX, the kernel's limit (linux/limits.h)
	n, err := unix.Listxattr(like, names)
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "listxattr", Path: like, Err: err}
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00") {
		if name == "" || slices.Contains(ofContents, name) {
			continue
		}
		err := copyAttribute(f, like, name)
		refused := errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOTSUP)
		if refused && name != acl {
			continue // any other program that rewrites the file loses it too
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ofContents are attributes that describe the contents. With other contents the kernel would refuse to open the file
// (Linux, security/integrity: the hash of the contents, and that of the attributes). The kernel sets them itself if
// needed.
var ofContents = []string{"security.ima", "security.evm"}

// acl is the attribute without which other users might no longer be able to read the file.
const acl = "system.posix_acl_access"

func copyAttribute(f *os.File, like, name string) error {
	want, have := make([]byte, 64<<10), make([]byte, 64<<10)
	n, err := unix.Getxattr(like, name, want)
	if err != nil {
		return &fs.PathError{Op: "getxattr " + name, Path: like, Err: err}
	}
	// A new file often has the right label already. Then setting it, which may need a privilege, is not necessary.
	if m, err := unix.Fgetxattr(int(f.Fd()), name, have); err == nil && bytes.Equal(want[:n], have[:m]) {
		return nil
	}
	if err := unix.Fsetxattr(int(f.Fd()), name, want[:n], 0); err != nil {
		return &fs.PathError{Op: "setxattr " + name, Path: f.Name(), Err: err}
	}
	return nil
}

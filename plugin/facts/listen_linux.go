package facts

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Listen makes the agent's socket at an absolute path: mode 0600, in a directory that is made with mode 0700 or brought
// to it. It replaces a socket that is there, whether stale or of an agent that is about to go, but no other file. What
// plugin and agent keep in that directory, if it is their own, has the names in beside.
//
// The socket is bound under a temporary name and renamed, so a plugin finds the old one or the new one, never one with
// the wrong mode; the listener's Addr (and ss -xl) keep showing the name with ".new". Closing the listener leaves the
// file: an agent that ends after its successor has come would remove the successor's. A plugin that finds a socket
// nobody listens on tries again, as it does when there is none.
func Listen(path string, beside ...string) (net.Listener, error) {
	l, err := listen(path, beside)
	if err != nil {
		return nil, fmt.Errorf("making socket %q: %w", path, err)
	}
	return l, nil
}

// listen is Listen without the frame of its errors.
func listen(path string, beside []string) (*net.UnixListener, error) {
	temp := path + ".new"
	if err := checkPath(temp); err != nil {
		return nil, err
	}
	if err := secureDir(path, beside); err != nil {
		return nil, err
	}
	info, err := os.Lstat(path)
	switch {
	case err == nil && info.Mode().Type() != fs.ModeSocket:
		return nil, errors.New("a file of that name is there and is no socket")
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) { // of an agent killed right here
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(temp, 0o600), os.Rename(temp, path)); err != nil {
		_ = l.Close()
		_ = os.Remove(temp)
		return nil, err
	}
	return l, nil
}

// secureDir makes the socket's directory, or brings one that is there to mode 0700: the kubelet makes a hostPath with
// 0755. A directory that holds what is not ours is left as it is, because with a socket path such as /run/agent.sock
// that would lock everybody out of /run; it still has to be one that the client trusts.
func secureDir(path string, beside []string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if info.Mode().Perm() != 0o700 && owner(info) == 0 && onlyOurs(path, beside) {
		if err := os.Chmod(dir, 0o700); err != nil {
			return err
		}
	}
	return trustDir(dir)
}

// onlyOurs reports whether the socket's directory holds nothing but what is kept beside the socket and sockets of the
// agent.
func onlyOurs(path string, beside []string) bool {
	entries, err := os.ReadDir(filepath.Dir(path))
	for _, entry := range entries {
		name := entry.Name()
		if !slices.Contains(beside, name) && !strings.HasPrefix(name, filepath.Base(path)) {
			return false
		}
	}
	return err == nil
}

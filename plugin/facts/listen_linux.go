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

// Listen creates the agent's socket with mode 0600 at the absolute path. It creates its directory with mode 0700. It
// changes the mode of an existing directory only if that contains nothing but the socket and the names in beside, the
// other files of plugin and agent. It replaces an existing socket, also one that is still in use, but no other file.
//
// Listen binds the socket under a temporary name and renames it, so a plugin never finds a socket with the wrong mode.
// The listener's Addr, and `ss -xl`, show the name with the suffix ".new". Closing the listener does not remove the
// file: an agent that ends late would remove its successor's socket. A plugin that finds a socket without a listener
// tries again, as if there were none.
func Listen(path string, beside ...string) (net.Listener, error) {
	l, err := listen(path, beside)
	if err != nil {
		return nil, fmt.Errorf("making socket %q: %w", path, err)
	}
	return l, nil
}

// listen does the work of Listen, without the context that Listen adds to errors.
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
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) { // of an agent killed before the rename
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

// secureDir creates the socket's directory, or changes the mode of an existing one to 0700, because the kubelet creates
// a hostPath with 0755. It does not change a directory with other files: with a socket path such as /run/agent.sock
// that would make /run inaccessible. Such a directory still has to be one that the client trusts.
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

// onlyOurs reports whether the socket's directory contains nothing but sockets of the agent and the names in beside.
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

package install

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/istio-pod-network/controller/install/conflist"
	"github.com/istio-pod-network/controller/install/exchange"
	"github.com/istio-pod-network/controller/internal/files"
	"golang.org/x/sys/unix"
)

// exists reports whether path exists: a file, a directory or a symbolic link, even a dangling one.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// A .conf primary from which a list was made is set aside: it gets a name with this prefix and suffix, which no runtime
// reads.
const (
	asidePrefix = exchange.Hidden + "original."
	asideSuffix = ".aside"
)

// asideOf returns the name of a primary that is set aside.
func asideOf(name string) string { return asidePrefix + name + asideSuffix }

// aside returns the path of the .conf that was set aside for our list, or "".
func aside(f file) string {
	for _, name := range conflist.Originals(f.name) {
		if path := filepath.Join(filepath.Dir(f.path), asideOf(name)); f.isList() && exists(path) {
			return path
		}
	}
	return ""
}

// listName returns the name of the list for a .conf primary: 10-x.conflist or, if somebody else has a file with that
// name, 10-x.conf.conflist, which sorts before it.
func listName(f file) (string, error) {
	dir, names := filepath.Dir(f.path), conflist.Lists(f.name)
	for _, name := range names {
		if !exists(filepath.Join(dir, name)) {
			return name, nil
		}
		other := read(dir, name)
		_, wrapped := other.conf.Original()
		if other.problem == nil && (wrapped || other.conf.Ours() > 0 && aside(other) != "") {
			return name, nil
		}
	}
	return "", fmt.Errorf("making a list of %q: %q belongs to somebody else", f.path, names[0])
}

// convert makes a list from a .conf primary, and sets the .conf aside. The list is complete before that, so there is
// always a network: first the .conf, whose name sorts first, then the list.
func (c chain) convert(f file) error {
	f.path = filepath.Join(c.ConfDir, f.name) // the symbolic link itself, if it is one
	name, err := listName(f)
	if err != nil {
		return err
	}
	list, away := filepath.Join(c.ConfDir, name), filepath.Join(c.ConfDir, asideOf(f.name))
	if err := c.writeList(list, f.data, f.path); err != nil {
		return err
	}
	if err := unix.Rename(f.path, away); err != nil {
		return &os.LinkError{Op: "rename", Old: f.path, New: away, Err: err}
	}
	if err := files.SyncDir(c.ConfDir); err != nil {
		return err
	}
	if err := c.refresh(list, away, f.data); err != nil {
		// What its owner wrote last cannot be used, so the .conf gets its name back.
		return errors.Join(err, exchange.Move(away, f.path))
	}
	return nil
}

func (c chain) writeList(list string, primary []byte, like string) error {
	spliced, err := conflist.Splice(primary, c.ours)
	if err != nil {
		return fmt.Errorf("making a list of %q: %w", like, err)
	}
	return exchange.Write(list, bytes.NewReader(spliced), exchange.Like(like))
}

// refresh makes the list again if the .conf was changed before it was set aside. known are the contents from which the
// list was made.
func (c chain) refresh(list, away string, known []byte) error {
	now, err := exchange.ReadClosed(away)
	if err != nil || bytes.Equal(now, known) {
		return err
	}
	return c.writeList(list, now, away)
}

// renew calls refresh for an installer that was killed after it had set the .conf aside.
func (c chain) renew(f file) error {
	away := aside(f)
	known, wrapped := f.conf.Original()
	if away == "" || !wrapped {
		return nil
	}
	return c.refresh(f.path, away, known)
}

// restore undoes convert: the .conf gets its name back, and then the list is removed. It returns false for a list that
// somebody else has changed, which remains a list.
func (c chain) restore(f file) (bool, error) {
	original, wrapped := f.conf.Original()
	if !wrapped {
		return false, nil
	}
	path := filepath.Join(c.ConfDir, conflist.Originals(f.name)[0])
	if away := aside(f); away != "" {
		path = filepath.Join(c.ConfDir, strings.TrimSuffix(strings.TrimPrefix(filepath.Base(away), asidePrefix), asideSuffix))
		err := exchange.Move(away, path)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return false, err
		}
	}
	if !exists(path) {
		if err := exchange.Write(path, bytes.NewReader(original), exchange.Like(f.path)); err != nil {
			return false, err
		}
	}
	if err := files.SyncDir(c.ConfDir); err != nil {
		return false, err
	}
	if away := aside(f); away != "" { // its owner has written a new .conf meanwhile
		if err := exchange.Remove(away); err != nil {
			return false, err
		}
	}
	return true, exchange.RemoveIf(f.path, f.data)
}

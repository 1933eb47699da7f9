package install

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/istio-pod-network/controller/internal/files"
	"golang.org/x/sys/unix"
)

// exists reports whether something has that name, be it a dangling link.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// originals are the names that the primary of a list we made may have had, the likely one first.
func originals(list string) []string {
	base := strings.TrimSuffix(list, ".conflist")
	if ext := filepath.Ext(base); ext == ".conf" || ext == ".json" {
		return []string{base, base + ".conf", base + ".json"}
	}
	return []string{base + ".conf", base + ".json"}
}

// asideOf is the name under which a primary is put aside; the suffix hides it from runtimes.
func asideOf(name string) string { return asidePrefix + name + asideSuffix }

// aside returns the path of the .conf primary that was put aside for a list of ours, or "".
func aside(f file) string {
	for _, name := range originals(f.name) {
		if path := filepath.Join(filepath.Dir(f.path), asideOf(name)); !f.single() && exists(path) {
			return path
		}
	}
	return ""
}

// listName is the name of the list for a .conf primary: 10-x.conflist, unless somebody else has a file of that name, then
// 10-x.conf.conflist, which sorts before it.
func listName(f file) (string, error) {
	dir, base := filepath.Dir(f.path), strings.TrimSuffix(f.name, filepath.Ext(f.name))
	for _, name := range []string{base + ".conflist", f.name + ".conflist"} {
		if !exists(filepath.Join(dir, name)) {
			return name, nil
		}
		other := open(dir, name)
		_, wrapped := unwrap(other.data, other.conf)
		if other.problem == nil && (wrapped || len(other.conf.ours) > 0 && aside(other) != "") {
			return name, nil
		}
	}
	return "", fmt.Errorf("making a list of %q: %q belongs to somebody else", f.path, base+".conflist")
}

// convert makes a list of a .conf primary, and puts that aside. The list is complete before the primary goes, so there is
// a network at every moment; until then the primary, whose name sorts first, stays the network.
func (c Config) convert(f file) error {
	f.path = filepath.Join(c.ConfDir, f.name) // the link itself, if it is one
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
		return errors.Join(err, move(away, f.path)) // what its owner wrote last cannot be used yet; it is his again
	}
	return nil
}

func (c Config) writeList(list string, primary []byte, like string) error {
	spliced, err := Splice(primary, c.Entry.Text())
	if err != nil {
		return fmt.Errorf("making a list of %q: %w", like, err)
	}
	return replace(list, bytes.NewReader(spliced), attributesOf(like))
}

// refresh makes the list again if the primary was changed between our reading it and its being put aside.
func (c Config) refresh(list, away string, known []byte) error {
	if !writersGone(away) {
		return fmt.Errorf("reading %q: %w", away, errBusy)
	}
	now, err := readConf(away)
	if err != nil || bytes.Equal(now, known) {
		return err
	}
	return c.writeList(list, now, away)
}

// renew is refresh in a later process, if the one that put the primary aside was killed before it looked.
func (c Config) renew(f file) error {
	away := aside(f)
	known, wrapped := unwrap(f.data, f.conf)
	if away == "" || !wrapped {
		return nil
	}
	return c.refresh(f.path, away, known)
}

// restore undoes convert: the primary gets its name back, then the list goes. It returns false for a list that
// somebody else has changed, which stays a list.
func (c Config) restore(f file) (bool, error) {
	original, wrapped := unwrap(f.data, f.conf)
	if !wrapped {
		return false, nil
	}
	path := filepath.Join(c.ConfDir, originals(f.name)[0])
	if away := aside(f); away != "" {
		path = filepath.Join(c.ConfDir, strings.TrimSuffix(strings.TrimPrefix(filepath.Base(away), asidePrefix), asideSuffix))
		err := move(away, path)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return false, err
		}
	}
	if !exists(path) {
		if err := replace(path, bytes.NewReader(original), attributesOf(f.path)); err != nil {
			return false, err
		}
	}
	if err := files.SyncDir(c.ConfDir); err != nil {
		return false, err
	}
	if away := aside(f); away != "" { // its owner wrote the primary anew beside it
		if err := remove(away); err != nil {
			return false, err
		}
	}
	return true, removeIf(f.path, f.data)
}

// removeIf removes a file that still has these contents. One that somebody has changed meanwhile comes back and is kept.
func removeIf(path string, contents []byte) error {
	temp := files.Temp(filepath.Dir(path), tempName)
	if err := move(path, temp); err != nil {
		return err
	}
	writersGone(temp)
	if now, err := readConf(temp); err != nil || !bytes.Equal(now, contents) {
		return errors.Join(fmt.Errorf("removing %q: %w", path, errBusy), err, move(temp, path))
	}
	return remove(temp)
}

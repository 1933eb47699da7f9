package install

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/internal/files"
	"golang.org/x/sys/unix"
)

// Install puts the binary in place and then our entry into the network, and makes good whatever is not as it should be.
// Where all is well it changes nothing. Without a primary network the binary is installed and the error satisfies
// IsNoPrimary. The state after it is LookAt's.
func Install(c Config) error {
	c, err := c.withDefaults()
	if err != nil {
		return err
	}
	if err := c.installBinary(); err != nil {
		return fmt.Errorf("installing the binary: %w", err)
	}
	if c.Mode != ModeChain {
		return c.installOwn()
	}
	return c.locked(c.installChain)
}

// locked runs work in confDir with the lock held and the remains of killed installers gone.
func (c Config) locked(work func() error) error {
	unlock, err := lock(c.ConfDir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%q does not exist: %w", c.ConfDir, errNoPrimary)
	}
	if err != nil {
		return err
	}
	defer unlock()
	files, err := look(c.ConfDir)
	if err != nil {
		return err
	}
	dirs := map[string]bool{c.ConfDir: true}
	for _, f := range files {
		dirs[filepath.Dir(f.path)] = true // of the target of a link
	}
	for dir := range dirs {
		if err := clean(dir); err != nil {
			return fmt.Errorf("tidying %q: %w", dir, err)
		}
	}
	return work()
}

// installOwn writes the file of ModeNAD or ModeAux.
func (c Config) installOwn() error {
	dir := filepath.Dir(c.own())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	unlock, err := lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	if err := clean(dir); err != nil {
		return err
	}
	if err := c.writeOwn(c.own(), c.standalone(), dir); err != nil || !c.hasFormer() {
		return err
	}
	if err := remove(c.former()); err != nil {
		return fmt.Errorf("changing the mode to %s: %w", c.Mode, err)
	}
	c.made(CauseDuplicates)
	return nil
}

// hasFormer reports whether our file of another mode is still there. In the auxiliary chain it would have Multus run the
// plugin for every pod, long after whoever answers it is gone.
func (c Config) hasFormer() bool {
	data, err := readConf(c.former())
	return err == nil && entry.TypeOf(data) == entry.Type
}

// writeOwn writes a file of ours, by way of a directory, unless it says the same already.
func (c Config) writeOwn(path string, contents []byte, via string) error {
	data, err := readConf(path)
	if err == nil && bytes.Equal(data, contents) {
		return nil
	}
	if err := replaceVia(via, path, bytes.NewReader(contents), nil); err != nil {
		return fmt.Errorf("writing %q: %w", path, err)
	}
	if errors.Is(err, fs.ErrNotExist) {
		c.made(CauseEntryMissing)
	} else {
		c.made(CauseEntryChanged)
	}
	return nil
}

// maxHops bounds how often a pass starts again because the primary has changed while it worked.
const maxHops = 100

// installChain chains into the active network. It looks again after it changed something, and when the file it worked
// on was removed or replaced meanwhile: a primary that renames its files is met at its new name.
func (c Config) installChain() error {
	var err error
	for range maxHops {
		var done bool
		if done, err = c.step(); done || err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return errors.Join(fmt.Errorf("%q changes faster than it can be read", c.ConfDir), err)
}

// step makes the next change; done says that there is none to make.
func (c Config) step() (done bool, err error) {
	files, err := look(c.ConfDir)
	if err != nil {
		return true, err
	}
	f, err := active(files)
	if err != nil {
		return true, fmt.Errorf("%q: %w", c.ConfDir, describe(files, err))
	}
	switch {
	case f.protected():
		return true, fmt.Errorf("chaining into %q: %w", f.path, errReadiness)
	case f.single():
		err := c.convert(f)
		if err == nil {
			c.made(CauseEntryMissing)
		}
		return false, err
	case c.usesDropIn(f):
		return c.dropIn(f)
	}
	if err := c.renew(f); err != nil {
		return true, err
	}
	changed, err := update(f.path, func(existing []byte) ([]byte, error) { return Splice(existing, c.Entry.Text()) }, nil)
	if err != nil {
		return false, fmt.Errorf("chaining into %q: %w", f.path, err)
	}
	if changed {
		c.made(c.causeIn(f))
		if filepath.Dir(f.path) != filepath.Clean(c.ConfDir) {
			err = c.nudge()
		}
	} else if component.MatchString(f.conf.name) && exists(c.dropInOf(f.conf.name)) {
		c.made(CauseDuplicates)
	}
	if removed := c.removeDropIns(f.conf.name, files); err == nil { // after the splice, so that there is no moment without
		err = removed
	}
	return !changed, err
}

// causeIn is why a list had to be changed.
func (c Config) causeIn(f file) Cause {
	switch {
	case len(f.conf.ours) > 1:
		return CauseDuplicates
	case len(f.conf.ours) == 1 && !f.chained(c.Entry.Text()):
		return CauseEntryChanged
	}
	return CauseEntryMissing // also where it was there when the file was read: somebody has written it since
}

// describe adds why the files that are there are no primary.
func describe(files []file, err error) error {
	for _, f := range files {
		err = fmt.Errorf("%w; %s: %w", err, f.name, f.problem)
	}
	return err
}

// dropIn writes the drop-in of a network, and then takes our entry out of the primary's file if it is there too.
//
// containerd watches confDir alone, not what is below, and of what happens there it ignores that a file was made or its
// mode changed. So the file is made in confDir and renamed from there to its place, which containerd sees.
func (c Config) dropIn(f file) (done bool, err error) {
	path := c.dropInOf(f.conf.name)
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return true, err
	}
	if err := c.writeOwn(path, indented(c.Entry.Text()), c.ConfDir); err != nil || len(f.conf.ours) == 0 {
		return true, err
	}
	changed, err := update(f.path, without, nil)
	if changed {
		c.made(CauseDuplicates)
	}
	return false, err
}

// without is a list with none of our entries; unlike Unsplice it leaves a list a list.
func without(existing []byte) ([]byte, error) {
	c, err := parse(existing)
	if err != nil {
		return nil, err
	}
	return c.remove(existing), nil
}

// nudge makes containerd read its configurations again, after a change outside confDir: it sees a file go.
func (c Config) nudge() error {
	path := files.Temp(c.ConfDir, tempName)
	if err := files.Create(path, bytes.NewReader(nil), nil); err != nil {
		return err
	}
	return remove(path)
}

// removeDropIns removes our drop-ins: of one network, or of every one if network is "". They go by way of confDir, where
// containerd sees it. Directories of the networks that are empty then go too, also those that a killed installer left.
func (c Config) removeDropIns(network string, found []file) error {
	for _, path := range c.dropIns() {
		if network != "" && filepath.Base(filepath.Dir(path)) != network {
			continue
		}
		temp := files.Temp(c.ConfDir, tempName)
		if err := unix.Rename(path, temp); err != nil {
			return &os.LinkError{Op: "rename", Old: path, New: temp, Err: err}
		}
		if err := files.SyncDir(filepath.Dir(path)); err != nil {
			return err
		}
		if err := remove(temp); err != nil {
			return err
		}
		_ = unix.Rmdir(filepath.Dir(path))
	}
	for _, f := range found {
		if component.MatchString(f.conf.name) && (network == "" || f.conf.name == network) {
			_ = unix.Rmdir(filepath.Join(c.ConfDir, f.conf.name))
		}
	}
	return nil
}

// Uninstall takes our entry out of every configuration of the mode, and then, if purge is set, removes the binary and the
// records of pods. What nobody else has changed gets its original bytes back. Without purge the binary stays: CRI-O and
// Multus run it for the DEL of every pod that was made with it, and cannot delete those pods when it is gone.
func Uninstall(c Config, purge bool) error {
	c, err := c.withDefaults()
	if err != nil {
		return err
	}
	if c.Mode == ModeChain {
		err = c.locked(c.uninstallChain)
	} else {
		err = remove(c.own())
		if c.hasFormer() {
			err = errors.Join(err, remove(c.former()))
		}
	}
	if err != nil && !IsNoPrimary(err) || !purge {
		return ignoreNoPrimary(err)
	}
	if err := remove(c.binary()); err != nil {
		return fmt.Errorf("removing the binary: %w", err)
	}
	if err := empty(c.StateDir); err != nil {
		return fmt.Errorf("removing the records: %w", err)
	}
	return nil
}

// empty removes what is in a directory, but not the directory: it may be the mount of an agent's pod.
func empty(dir string) error {
	if dir == "" {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

func ignoreNoPrimary(err error) error {
	if IsNoPrimary(err) {
		return nil
	}
	return err
}

func (c Config) uninstallChain() error {
	files, err := look(c.ConfDir)
	if err != nil {
		return err
	}
	if err := c.removeDropIns("", files); err != nil {
		return err
	}
	for _, f := range files {
		if f.single() || len(f.conf.ours) == 0 || f.problem != nil && !errors.Is(f.problem, errOnlyOurs) {
			continue
		}
		if err := c.renew(f); err != nil {
			return err
		}
		f = open(c.ConfDir, f.name)
		if restored, err := c.restore(f); restored || err != nil {
			if err != nil {
				return fmt.Errorf("restoring the original of %q: %w", f.path, err)
			}
			continue
		}
		if _, err := update(f.path, without, nil); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("taking our entry out of %q: %w", f.path, err)
		}
		if away := aside(f); away != "" { // the list is no longer that of the .conf, so that is history
			if err := remove(away); err != nil {
				return err
			}
		}
	}
	return nil
}

package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/istio-pod-network/controller/install/conflist"
	"github.com/istio-pod-network/controller/install/exchange"
	"golang.org/x/sys/unix"
)

// chain implements network for ModeChain: the network that the runtime uses.
type chain struct{ *installer }

func (c chain) install() error   { return c.locked(c.chainIn) }
func (c chain) uninstall() error { return c.locked(c.takeOut) }

// locked holds the lock of confDir while it calls work. Locking also recovers from installers that were killed.
func (c chain) locked(work func() error) error {
	unlock, err := exchange.Lock(c.ConfDir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%q does not exist: %w", c.ConfDir, errNoPrimary)
	}
	if err != nil {
		return err
	}
	defer unlock()
	files, err := readAll(c.ConfDir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if dir := filepath.Dir(f.path); dir != filepath.Clean(c.ConfDir) { // the file is the target of a symbolic link
			if err := exchange.Recover(dir); err != nil {
				return err
			}
		}
	}
	return work()
}

// maxSteps limits how often a pass starts again because the primary has changed meanwhile.
const maxSteps = 5

// errUnsteady is the error for a directory that changed during every step of a pass.
var errUnsteady = errors.New("changes faster than it can be read")

// chainIn chains our entry into the active network. It reads the directory again after each of its changes, and
// whenever its file was removed or replaced: a primary may rename its files.
func (c chain) chainIn() error {
	var err error
	for range maxSteps {
		var done bool
		if done, err = c.step(); done || err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return errors.Join(fmt.Errorf("%q %w", c.ConfDir, errUnsteady), err)
}

// step makes the next change. done is true if no change was necessary, or if another step would not help.
func (c chain) step() (done bool, err error) {
	files, err := readAll(c.ConfDir)
	if err != nil {
		return true, err
	}
	f, err := c.active(files)
	if err != nil {
		if errors.Is(err, errDangling) {
			return true, err
		}
		return true, fmt.Errorf("%q: %w", c.ConfDir, describe(files, err))
	}
	if f.protected() {
		return true, fmt.Errorf("chaining into %q: %w", f.path, errReadiness)
	}
	if err := c.fits(f); err != nil {
		err = fmt.Errorf("chaining into %q: %w", f.path, err)
		if c.harms(err) {
			err = errors.Join(err, c.takeOut())
		}
		return true, err
	}
	switch {
	case !f.isList():
		err := c.convert(f)
		if err == nil {
			c.repaired(CauseEntryMissing)
		}
		return false, err
	case c.usesDropIn(f):
		return c.dropIn(f)
	}
	return c.splice(f, files)
}

// splice puts our entry into the primary's list, and then removes our drop-in if there is one. In the other order the
// network would briefly be without our entry.
func (c chain) splice(f file, files []file) (done bool, err error) {
	if err := c.renew(f); err != nil {
		return true, err
	}
	splice := func(existing []byte) ([]byte, error) { return conflist.Splice(existing, c.ours) }
	changed, err := exchange.Update(f.path, splice)
	if err != nil {
		return false, fmt.Errorf("chaining into %q: %w", f.path, err)
	}
	if changed {
		c.repaired(c.causeIn(f))
		if filepath.Dir(f.path) != filepath.Clean(c.ConfDir) {
			err = exchange.Touch(c.ConfDir) // containerd only watches confDir itself, and reloads when a file in it is removed
		}
	} else if component.MatchString(f.conf.Name) && exists(c.dropInOf(f.conf.Name)) {
		c.repaired(CauseDuplicates)
	}
	return !changed, errors.Join(err, c.removeDropIns(f.conf.Name, files))
}

// causeIn returns why the list had to be changed.
func (c chain) causeIn(f file) Cause {
	switch {
	case f.conf.Ours() > 1:
		return CauseDuplicates
	case f.conf.Ours() == 1 && !f.conf.Chained(c.ours):
		return CauseEntryChanged
	}
	return CauseEntryMissing // also if the entry was there when the file was read: the file was rewritten since
}

// describe adds to err, for each file, why it is not the primary.
func describe(files []file, err error) error {
	for _, f := range files {
		if f.problem == nil {
			err = fmt.Errorf("%w; %s: its network is %q", err, f.name, f.conf.Name)
		} else {
			err = fmt.Errorf("%w; %s: %w", err, f.name, f.problem)
		}
	}
	return err
}

// dropIn writes the drop-in of a network, and then removes our entry from the primary's file if it is there.
//
// containerd watches confDir, but not the directories below it, and it ignores events that create a file or change its
// mode. So the file is created in confDir and renamed to its place: containerd notices that it leaves confDir.
func (c chain) dropIn(f file) (done bool, err error) {
	path := c.dropInOf(f.conf.Name)
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return true, err
	}
	if err := c.write(path, conflist.Indented(c.ours), c.ConfDir); err != nil || f.conf.Ours() == 0 {
		return true, err
	}
	changed, err := exchange.Update(f.path, conflist.Without)
	if changed {
		c.repaired(CauseDuplicates)
	}
	return false, err
}

// removeDropIns removes our drop-ins of the network, or of all networks if network is "". It first renames them into
// confDir, which containerd notices. It also removes empty directories of these networks, which a killed installer may
// have left.
func (c chain) removeDropIns(network string, files []file) error {
	for _, path := range c.dropIns() {
		if network != "" && filepath.Base(filepath.Dir(path)) != network {
			continue
		}
		if err := exchange.RemoveVia(c.ConfDir, path); err != nil {
			return err
		}
		_ = unix.Rmdir(filepath.Dir(path))
	}
	for _, f := range files {
		if component.MatchString(f.conf.Name) && (network == "" || f.conf.Name == network) {
			_ = unix.Rmdir(filepath.Join(c.ConfDir, f.conf.Name))
		}
	}
	return nil
}

// takeOut removes our entry from every configuration.
func (c chain) takeOut() error {
	files, err := readAll(c.ConfDir)
	if err != nil {
		return err
	}
	if err := c.removeDropIns("", files); err != nil {
		return err
	}
	for _, f := range files {
		if !f.isList() || f.conf.Ours() == 0 || f.unreadable() {
			continue
		}
		if err := c.takeOutOf(f); err != nil {
			return err
		}
	}
	return nil
}

func (c chain) takeOutOf(f file) error {
	if err := c.renew(f); err != nil {
		return err
	}
	f = read(c.ConfDir, f.name)
	restored, err := c.restore(f)
	if err != nil {
		return fmt.Errorf("restoring the original of %q: %w", f.path, err)
	}
	if restored {
		return nil
	}
	if _, err := exchange.Update(f.path, conflist.Without); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("taking our entry out of %q: %w", f.path, err)
	}
	if away := aside(f); away != "" { // somebody has changed the list since it was made from the .conf
		return exchange.Remove(away)
	}
	return nil
}

// dirs returns confDir, the directories of symbolic links' targets, and the drop-in directories of the networks.
func (c chain) dirs() []string {
	dirs := []string{c.ConfDir}
	files, _ := readAll(c.ConfDir)
	for _, f := range files {
		if dir := filepath.Dir(f.path); dir != filepath.Clean(c.ConfDir) {
			dirs = append(dirs, dir)
		}
		if component.MatchString(f.conf.Name) {
			dirs = append(dirs, filepath.Join(c.ConfDir, f.conf.Name))
		}
	}
	return dirs
}

func (c chain) lookAt(s *Status) {
	files, err := readAll(c.ConfDir)
	if err != nil {
		s.miss("%v", err)
	}
	f, err := c.active(files)
	for _, other := range files {
		if err == nil && other.name == f.name {
			continue
		}
		o := Other{Path: other.path, Ours: other.conf.Ours() > 0}
		if other.problem != nil {
			o.Problem = other.problem.Error()
		}
		s.Others = append(s.Others, o)
	}
	if errors.Is(err, errDangling) {
		s.missFor(err)
		return
	}
	if err != nil {
		s.miss("waiting: %v in %s", err, c.ConfDir)
		return
	}
	s.Active, s.Network, s.Plugins = f.path, f.conf.Name, f.conf.Types()
	dropped := 0
	for _, path := range c.dropIns() {
		if filepath.Base(filepath.Dir(path)) == f.conf.Name {
			dropped++
		}
	}
	s.Duplicates = max(0, f.conf.Ours()+dropped-1)
	s.Chained = c.chaining(f)
	s.NotFound = c.notFound(f)
	if s.Binary.Current && !f.protected() {
		if err := c.fits(f); err != nil {
			s.missFor(err)
		}
	}
	if s.Duplicates > 0 {
		s.miss("our entry is there %d times too often", s.Duplicates)
	}
	switch {
	case s.Chained != NotChained:
	case f.protected():
		s.miss("%s: %v", f.path, errReadiness)
	case f.conf.Ours()+dropped > 0:
		s.miss("our entry in %s is not as it should be, or not last", f.path)
	default:
		s.miss("%s is without our entry", f.path)
	}
}

// chaining returns how our entry is chained into the active network, or NotChained if it is not as it should be.
// Without an expected entry it accepts any entry of ours, spliced or dropped in.
func (c chain) chaining(f file) Chaining {
	dropsIn := c.usesDropIn(f) || c.ours == nil && f.conf.Ours() == 0
	if dropsIn && component.MatchString(f.conf.Name) {
		data, err := exchange.Read(c.dropInOf(f.conf.Name))
		if err == nil && c.isOurs(data, c.ours) && f.conf.Ours() == 0 {
			return DroppedIn
		}
		return NotChained
	}
	if f.conf.Chained(c.ours) {
		return Spliced
	}
	return NotChained
}

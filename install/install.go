package install

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/istio-pod-network/controller/install/conflist"
	"github.com/istio-pod-network/controller/install/exchange"
	"github.com/istio-pod-network/controller/internal/entry"
)

// installer is one pass over a node.
type installer struct {
	Config          // with defaults
	ours    []byte  // text of the entry to install; nil: any entry of ours is right
	repairs []Cause // the causes of repairs, without duplicates
	memo    *memo
}

func newInstaller(c Config, m *memo) (*installer, error) {
	c, err := c.withDefaults()
	return &installer{Config: c, ours: c.Entry.Text(), memo: m}, err
}

// repaired notes the cause of a repair.
func (i *installer) repaired(cause Cause) {
	if !slices.Contains(i.repairs, cause) {
		i.repairs = append(i.repairs, cause)
	}
}

// network is the network that the plugin joins. It is implemented by chain, and by ownFile for Multus.
type network interface {
	install() error
	uninstall() error
	lookAt(*Status)
	dirs() []string // the directories to watch
}

func (i *installer) network() network {
	if i.Mode == ModeChain {
		return chain{i}
	}
	path, former := i.ownFiles()
	return ownFile{i, path, former}
}

// Install installs the binary and then chains our entry into the network. It repairs what differs from c, and changes
// nothing else. Without a primary network it installs the binary, and IsNoPrimary holds for the error. LookAt returns
// the state afterwards.
func Install(c Config) error {
	_, err := install(c, new(memo))
	return err
}

// install does the work of Install, and returns what was repaired.
func install(c Config, m *memo) ([]Cause, error) {
	i, err := newInstaller(c, m)
	if err != nil {
		return nil, err
	}
	for range maxSteps {
		if err := i.installBinary(); err != nil {
			return i.repairs, errors.Join(fmt.Errorf("installing the binary: %w", err), i.withdraw())
		}
		err = i.network().install()
		gone := errors.Is(err, errNotRun) && errors.Is(err, fs.ErrNotExist) // somebody has removed the binary meanwhile
		if !gone || i.Source == "" {
			break
		}
	}
	return i.repairs, err
}

// withdraw removes our entry from the network if the binary is missing: no pod of the node would start with it.
func (i *installer) withdraw() error {
	if executable(i.binary()) {
		return nil
	}
	anyOfOurs := *i
	anyOfOurs.ours = nil
	var s Status
	if anyOfOurs.network().lookAt(&s); s.Chained == NotChained {
		return nil
	}
	return i.network().uninstall()
}

// Uninstall removes our entry from every configuration of the mode. With purge it then removes the binary and the
// records. A file that nobody else has changed gets its original bytes back. While there are pods that cannot be
// deleted without the binary, a purge removes neither, and IsNeeded holds for the error: the binary then still serves
// DEL and CHECK of those pods, and no other call.
func Uninstall(c Config, purge bool) error {
	i, err := newInstaller(c, new(memo))
	if err != nil {
		return err
	}
	if err := i.network().uninstall(); err != nil && !IsNoPrimary(err) {
		return err
	}
	if !purge {
		return nil
	}
	if err := Needs(i.Config); err != nil {
		return err
	}
	if err := exchange.Remove(i.binary()); err != nil {
		return fmt.Errorf("removing the binary: %w", err)
	}
	if err := empty(i.StateDir); err != nil {
		return fmt.Errorf("removing the records: %w", err)
	}
	return nil
}

// empty removes everything in a directory, but not the directory itself: it may be a mount in the agent's pod.
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

// write writes a file that only this installer writes, unless it has these contents already. The temporary file is in
// the directory via.
func (i *installer) write(path string, contents []byte, via string) error {
	data, err := exchange.Read(path)
	if err == nil && bytes.Equal(data, contents) {
		return nil
	}
	if err := exchange.WriteVia(via, path, bytes.NewReader(contents), nil); err != nil {
		return fmt.Errorf("writing %q: %w", path, err)
	}
	if errors.Is(err, fs.ErrNotExist) {
		i.repaired(CauseEntryMissing)
	} else {
		i.repaired(CauseEntryChanged)
	}
	return nil
}

// isOurs reports whether a file that only this installer writes has the right contents.
func (i *installer) isOurs(data, want []byte) bool {
	return i.ours == nil && entry.TypeOf(data) == entry.Type || conflist.Equal(data, want)
}

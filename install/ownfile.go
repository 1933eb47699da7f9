package install

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/istio-pod-network/controller/install/conflist"
	"github.com/istio-pod-network/controller/install/exchange"
	"github.com/istio-pod-network/controller/internal/entry"
)

// ownFile implements network for ModeNAD and ModeAux: a file that only this installer writes, and that Multus reads.
type ownFile struct {
	*installer
	path   string
	former string // path of our file in the other mode
}

func (o ownFile) contents() []byte { return conflist.Standalone(o.Entry.Text()) }

func (o ownFile) install() error {
	if err := o.fits(); err != nil {
		return fmt.Errorf("writing %q: %w", o.path, err)
	}
	dir := filepath.Dir(o.path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	unlock, err := exchange.Lock(dir)
	if err != nil {
		return err
	}
	defer unlock()
	if err := o.write(o.path, o.contents(), dir); err != nil || !o.hasFormer() {
		return err
	}
	if err := exchange.Remove(o.former); err != nil {
		return fmt.Errorf("changing the mode to %s: %w", o.Mode, err)
	}
	o.repaired(CauseDuplicates)
	return nil
}

// fits returns why the plugin could not serve any pod, or nil.
func (o ownFile) fits() error {
	conf, err := conflist.Parse(o.contents())
	if err != nil {
		return err
	}
	return o.prove(conf.Versions())
}

// hasFormer reports whether our file of the other mode is still there. In the auxiliary chain it would make Multus run
// the plugin for every pod, even without an agent.
func (o ownFile) hasFormer() bool {
	data, err := exchange.Read(o.former)
	return err == nil && entry.TypeOf(data) == entry.Type
}

func (o ownFile) uninstall() error {
	err := exchange.Remove(o.path)
	if o.hasFormer() {
		err = errors.Join(err, exchange.Remove(o.former))
	}
	return err
}

func (o ownFile) lookAt(s *Status) {
	s.ConfDir, s.Active, s.Network = filepath.Dir(o.path), o.path, entry.Type
	data, err := exchange.Read(o.path)
	switch {
	case err != nil:
		s.miss("%v", err)
	case !o.isOurs(data, o.contents()):
		s.miss("%s is not as it should be", o.path)
	default:
		s.Chained = OwnFile
	}
	if s.Binary.Current {
		if err := o.fits(); err != nil {
			s.missFor(err)
		}
	}
	if o.hasFormer() {
		if s.Chained == OwnFile {
			s.Duplicates = 1
		}
		s.miss("%s is left of another mode", o.former)
	}
}

func (o ownFile) dirs() []string {
	return []string{filepath.Dir(o.path), filepath.Dir(o.former)}
}

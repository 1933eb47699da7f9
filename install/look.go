package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/istio-pod-network/controller/install/conflist"
	"github.com/istio-pod-network/controller/install/exchange"
	"github.com/istio-pod-network/controller/internal/entry"
)

// file is one network configuration in confDir.
type file struct {
	name, path string // path is the target if the file is a symbolic link
	data       []byte
	conf       conflist.Conf
	problem    error // why it cannot be the primary; nil if it can
	delegated  bool  // Multus reads it, not the runtime
}

// isList reports whether the runtime reads the file as a list of plugins, not as a single plugin.
func (f file) isList() bool { return conflist.IsList(f.name) }

// unreadable reports whether the contents of the file are unknown.
func (f file) unreadable() bool {
	return f.problem != nil && !errors.Is(f.problem, conflist.ErrOnlyOurs) && !errors.Is(f.problem, conflist.ErrLoopback)
}

// readAll reads the configurations of a directory in the order of the runtimes: by name, regardless of the extension. A
// missing directory is not an error.
func readAll(dir string) ([]file, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", dir, err)
	}
	var files []file
	for _, e := range entries {
		if !e.IsDir() && conflist.IsConf(e.Name()) {
			files = append(files, read(dir, e.Name()))
		}
	}
	return files, nil
}

// read reads one configuration, and checks whether it can be the primary.
func read(dir, name string) file {
	f := file{name: name, path: filepath.Join(dir, name)}
	if real, err := filepath.EvalSymlinks(f.path); err == nil {
		f.path = real // an edit would otherwise replace the link
	} else if target, noLink := os.Readlink(f.path); noLink == nil {
		f.problem = fmt.Errorf("%w: %q leads to %q: %w", errDangling, f.path, target, err)
		return f
	}
	if f.data, f.problem = exchange.Read(f.path); f.problem == nil {
		f.conf, f.problem = conflist.ParseFile(name, f.data)
	}
	return f
}

// active returns the configuration that the runtime uses: the first valid one by name, or the one that Primary names.
func (c chain) active(files []file) (file, error) {
	delegated := false
	for _, f := range files {
		if f.isMultus() && c.Primary != "" {
			delegated = true // Multus reads what comes after its own configuration
		}
		if c.Primary != "" && f.name != c.Primary && !f.isOf(c.Primary) && f.conf.Name != c.Primary {
			continue
		}
		if f.problem == nil || errors.Is(f.problem, errDangling) { // the runtime may see the target
			f.delegated = delegated
			return f, f.problem
		}
	}
	if c.Primary != "" {
		return file{}, fmt.Errorf("%w: none has the name %q, nor has its file", errNoPrimary, c.Primary)
	}
	return file{}, errNoPrimary
}

// isOf reports whether the file is the list that was made from the .conf with that name.
func (f file) isOf(conf string) bool {
	return f.isList() && aside(f) != "" && slices.Contains(conflist.Originals(f.name), conf)
}

// protected reports whether only its owner may edit the file.
func (f file) protected() bool {
	return slices.Contains(readiness, f.name) || !f.isList() && f.isMultus()
}

// isMultus reports whether the file makes the runtime call Multus.
func (f file) isMultus() bool { return f.problem == nil && slices.Contains(f.conf.Types(), "multus") }

// component matches a valid network name (CNI SPEC.md), which is safe as the name of a directory.
var component = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`)

// usesDropIn reports whether ModeChain uses a drop-in for this primary instead of splicing. A delegate is read by
// Multus, so the runtime's version does not apply to it.
func (c chain) usesDropIn(f file) bool {
	switch {
	case !f.isList(), f.conf.OnlyInlined(), !component.MatchString(f.conf.Name), aside(f) != "":
		return false
	case c.DropIn == DropInAuto:
		return readsDropIns(c.RuntimeVersion) && !f.delegated
	}
	return c.DropIn == DropInAlways
}

// dropIns returns the paths of our drop-ins of all networks.
func (c chain) dropIns() []string {
	found, _ := filepath.Glob(filepath.Join(escape(c.ConfDir), "*", dropInFile)) // the pattern is well-formed
	return slices.DeleteFunc(found, func(path string) bool {
		data, err := exchange.Read(path)
		return err != nil || entry.TypeOf(data) != entry.Type
	})
}

// escape returns a pattern that matches only the path.
func escape(path string) string {
	return regexp.MustCompile(`[*?\[\\]`).ReplaceAllString(path, `\$0`)
}

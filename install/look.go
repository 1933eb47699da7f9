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
	name, path string // path has no symbolic link at its end
	data       []byte
	conf       conflist.Conf
	problem    error // why no runtime can use it, or why it is no primary
}

// isList reports whether the runtime reads the file as a list of plugins, not as a single one.
func (f file) isList() bool { return conflist.IsList(f.name) }

// look reads the configurations of a directory in the order in which runtimes look at them: by name, whatever the
// extension. A directory that is not there has none.
func look(dir string) ([]file, error) {
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
			files = append(files, open(dir, e.Name()))
		}
	}
	return files, nil
}

// open reads and judges one file.
func open(dir, name string) file {
	f := file{name: name, path: filepath.Join(dir, name)}
	if real, err := filepath.EvalSymlinks(f.path); err == nil {
		f.path = real // or the edit would replace the link
	}
	if f.data, f.problem = exchange.Read(f.path); f.problem == nil {
		f.conf, f.problem = conflist.ParseFile(name, f.data)
	}
	return f
}

// active is the configuration that the runtime uses: the first by name that is valid.
func active(files []file) (file, error) {
	for _, f := range files {
		if f.problem == nil {
			return f, nil
		}
	}
	return file{}, errNoPrimary
}

// protected reports whether a file must not be edited by anybody but its owner.
func (f file) protected() bool {
	return slices.Contains(readiness, f.name) || !f.isList() && entry.TypeOf(f.data) == "multus"
}

// component is a network name that is also the name of a directory below confDir: what the CNI specification allows.
var component = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`)

// usesDropIn decides between the two ways of ModeChain for one primary.
func (c chain) usesDropIn(f file) bool {
	switch {
	case !f.isList(), f.conf.OnlyInlined(), !component.MatchString(f.conf.Name), aside(f) != "":
		return false
	case c.DropIn == DropInAuto:
		return readsDropIns(c.RuntimeVersion)
	}
	return c.DropIn == DropInAlways
}

// dropIns lists our drop-ins, of whatever network.
func (c chain) dropIns() []string {
	found, _ := filepath.Glob(filepath.Join(escape(c.ConfDir), "*", dropInFile)) // the pattern is well-formed
	return slices.DeleteFunc(found, func(path string) bool {
		data, err := exchange.Read(path)
		return err != nil || entry.TypeOf(data) != entry.Type
	})
}

// escape keeps a path from being a pattern.
func escape(path string) string {
	return regexp.MustCompile(`[*?\[\\]`).ReplaceAllString(path, `\$0`)
}

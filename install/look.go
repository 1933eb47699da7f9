package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/internal/entry"
)

// file is one network configuration in confDir.
type file struct {
	name, path string // path has no symbolic link at its end
	data       []byte
	conf       conf
	problem    error // why no runtime can use it, or why it is no primary
}

// single reports whether the runtime reads the file as one plugin, not as a list.
func (f file) single() bool { return filepath.Ext(f.name) != ".conflist" }

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
		if !e.IsDir() && isConf(e.Name()) {
			files = append(files, open(dir, e.Name()))
		}
	}
	return files, nil
}

// isConf reports whether runtimes read a file of that name.
func isConf(name string) bool {
	return slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(name))
}

// open reads and judges one file.
func open(dir, name string) file {
	f := file{name: name, path: filepath.Join(dir, name)}
	if real, err := filepath.EvalSymlinks(f.path); err == nil {
		f.path = real // or the edit would replace the link
	}
	if f.data, f.problem = readConf(f.path); f.problem != nil {
		return f
	}
	f.conf, f.problem = parse(f.data)
	switch c := f.conf; {
	case f.problem != nil:
	case f.single() && !c.single:
		f.problem = errors.New("a list needs the extension .conflist")
	case !f.single() && c.single:
		f.problem = errors.New(`no "plugins"`)
	case !f.single() && c.name == "":
		f.problem = errNoName
	case len(c.plugins) == 0:
		f.problem = errNoPlugins
	case len(c.plugins) == len(c.ours):
		f.problem = errOnlyOurs
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
	return slices.Contains(readiness, f.name) || f.single() && entry.TypeOf(f.data) == "multus"
}

// chained reports whether our entry is in the file once, last, and as it should be; nil stands for any entry of ours.
func (f file) chained(ours []byte) bool {
	n := len(f.conf.plugins)
	return !f.single() && len(f.conf.ours) == 1 && f.conf.ours[0] == n-1 && (ours == nil || equal(f.conf.plugins[n-1].of(f.data), ours))
}

// component is a network name that is also the name of a directory below confDir: what the CNI specification allows.
var component = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.\-]*$`)

// usesDropIn decides between the two ways of ModeChain for one primary.
func (c Config) usesDropIn(f file) bool {
	only, _ := last(f.conf.members, "loadOnlyInlinedPlugins")
	inlined := strings.EqualFold(strings.Trim(string(only.value.of(f.data)), `"`), "true")
	switch {
	case f.single(), inlined, !component.MatchString(f.conf.name), aside(f) != "":
		return false
	case c.DropIn == DropInAuto:
		return readsDropIns(c.RuntimeVersion)
	}
	return c.DropIn == DropInAlways
}

// dropIns lists our drop-ins, of whatever network.
func (c Config) dropIns() []string {
	found, _ := filepath.Glob(filepath.Join(escape(c.ConfDir), "*", dropInFile)) // the pattern is well-formed
	return slices.DeleteFunc(found, func(path string) bool {
		data, err := readConf(path)
		return err != nil || entry.TypeOf(data) != entry.Type
	})
}

// escape keeps a path from being a pattern.
func escape(path string) string {
	return regexp.MustCompile(`[*?\[\\]`).ReplaceAllString(path, `\$0`)
}

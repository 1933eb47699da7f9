// Package conflist reads and edits the text of network configurations. It does no I/O. An edit changes only the text of
// our entry, and every other byte stays as it is.
package conflist

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/internal/entry"
)

// Errors that say why our entry cannot be chained into a network configuration.
var (
	ErrNotJSON   = errors.New("not valid JSON")
	ErrNotObject = errors.New("not a JSON object")
	ErrNoName    = errors.New(`no "name"`)
	ErrNoType    = errors.New(`neither "plugins" nor "type"`)
	ErrNoPlugins = errors.New(`no plugin in "plugins"`)
	ErrOnlyOurs  = errors.New("no plugin but ours")
	ErrLoopback  = errors.New("only the loopback interface, which runtimes set up by themselves")
	ErrPlugins   = errors.New(`"plugins" is not a list of objects`)
)

// Conf is a parsed network configuration, with the positions of its parts in the text.
type Conf struct {
	Name string // of the network; "" if there is none

	data    []byte
	single  bool // a single plugin, not a list
	members []member
	plugins []span
	ours    []int // the indexes of our entries in the list of plugins
}

// Parse parses a network configuration.
func Parse(data []byte) (Conf, error) {
	all, err := members(data)
	if err != nil {
		return Conf{}, err
	}
	c := Conf{data: data, members: all}
	if m, ok := last(all, "name"); ok {
		c.Name = text(m.value.of(data))
	}
	list, ok := last(all, "plugins")
	if !ok {
		c.single = true
		start := space(data, 0)
		c.plugins = []span{{start, value(data, start)}}
		switch entry.TypeOf(data) {
		case "":
			return Conf{}, ErrNoType
		case entry.Type:
			c.ours = []int{0}
		}
		return c, nil
	}
	if data[list.value.start] != '[' {
		return Conf{}, ErrPlugins
	}
	c.plugins = elements(data, list.value)
	for i, p := range c.plugins {
		if data[p.start] != '{' {
			return Conf{}, ErrPlugins
		}
		if entry.TypeOf(p.of(data)) == entry.Type {
			c.ours = append(c.ours, i)
		}
	}
	return c, nil
}

// ParseFile is Parse for a file with that name. The name decides whether a runtime reads the file as a list. The error
// says why no runtime can use the file as a network, or that it only has our entry (ErrOnlyOurs).
func ParseFile(name string, data []byte) (Conf, error) {
	c, err := Parse(data)
	switch list := IsList(name); {
	case err != nil:
	case !list && !c.single:
		err = errors.New("a list needs the extension .conflist")
	case list && c.single:
		err = errors.New(`no "plugins"`)
	case list && c.Name == "":
		err = ErrNoName
	case len(c.plugins) == 0:
		err = ErrNoPlugins
	case len(c.plugins) == len(c.ours):
		err = ErrOnlyOurs
	case slices.Equal(c.Types(), []string{"loopback"}): // CRI-O's 99-loopback.conf or 200-loopback.conflist
		err = ErrLoopback
	}
	return c, err
}

// IsConf reports whether runtimes read files with that name.
func IsConf(name string) bool {
	return slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(name))
}

// IsList reports whether runtimes read files with that name as a list of plugins, not as a single plugin.
func IsList(name string) bool { return filepath.Ext(name) == ".conflist" }

// Originals returns the possible names of the .conf from which this list was made, the most likely one first.
func Originals(list string) []string {
	base := strings.TrimSuffix(list, ".conflist")
	if ext := filepath.Ext(base); ext == ".conf" || ext == ".json" {
		return []string{base, base + ".conf", base + ".json"}
	}
	return []string{base + ".conf", base + ".json"}
}

// Lists returns the possible names of the list made from a .conf. The second one sorts before the first.
func Lists(conf string) []string {
	return []string{strings.TrimSuffix(conf, filepath.Ext(conf)) + ".conflist", conf + ".conflist"}
}

// Ours returns how many entries of ours the configuration has.
func (c Conf) Ours() int { return len(c.ours) }

// Chained reports whether the list has our entry exactly once, in the last place, and equal to ours as JSON. If ours is
// nil, any entry of ours is accepted.
func (c Conf) Chained(ours []byte) bool {
	n := len(c.plugins)
	return n > 1 && len(c.ours) == 1 && c.ours[0] == n-1 && (ours == nil || Equal(c.plugins[n-1].of(c.data), ours))
}

// OnlyInlined reports whether the list tells libcni not to read drop-ins (loadOnlyInlinedPlugins).
func (c Conf) OnlyInlined() bool {
	only, _ := last(c.members, "loadOnlyInlinedPlugins")
	return strings.EqualFold(strings.Trim(string(only.value.of(c.data)), `"`), "true")
}

// Standalone returns our entry as a network configuration of its own: with the name and the cniVersion that a network
// needs and an entry lacks. It returns nil if ours is not a JSON object.
func Standalone(ours []byte) []byte {
	all, err := members(ours)
	if err != nil {
		return nil
	}
	var add []string
	// Multus before OpenShift 4.23 has 0.3.1 itself. If it has 0.4.0 or later and the runtime calls CHECK, as CRI-O
	// does after each ADD, it passes CHECK on to all networks of a pod, and one with an older version fails it.
	for _, pair := range [][2]string{{"cniVersion", "0.4.0"}, {"name", entry.Type}} {
		if _, present := last(all, pair[0]); !present {
			add = append(add, fmt.Sprintf("%q: %q", pair[0], pair[1]))
		}
	}
	if len(add) > 0 {
		add = append(add, "")
	}
	return Indented(append([]byte("{"+strings.Join(add, ", ")), bytes.TrimSpace(ours)[1:]...))
}

// Indented returns a JSON object in the form of a file: indented, with a line feed at the end.
func Indented(object []byte) []byte {
	var out bytes.Buffer
	_ = json.Indent(&out, object, "", "  ")
	out.WriteByte('\n')
	return out.Bytes()
}

// Equal reports whether two JSON texts are equal, regardless of order and white space.
func Equal(a, b []byte) bool {
	decode := func(data []byte) (v any) {
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber()
		_ = d.Decode(&v)
		return v
	}
	return reflect.DeepEqual(decode(a), decode(b))
}

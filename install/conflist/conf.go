// Package conflist reads and edits the text of network configurations: bytes in, bytes out. An edit changes the text
// only where our entry goes, so that every byte of somebody else's stays as it is.
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

// Why our entry cannot be chained into a network configuration.
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

// Conf is a network configuration that was read, and where its parts are in the text.
type Conf struct {
	Name string // of the network; "" where there is none

	data    []byte
	single  bool // one plugin, not a list
	members []member
	plugins []span
	ours    []int // which plugins are ours
}

// Parse reads a network configuration.
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

// ParseFile is Parse for a file of that name, which decides how a runtime reads it. The error says why no runtime can
// use the file as a network, or that there is only ours in it.
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
	case slices.Equal(c.Types(), []string{"loopback"}): // in CRI-O's package, as 99-loopback.conf or 200-loopback.conflist
		err = ErrLoopback
	}
	return c, err
}

// IsConf reports whether runtimes read a file of that name.
func IsConf(name string) bool {
	return slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(name))
}

// IsList reports whether runtimes read a file of that name as a list of plugins, not as a single one.
func IsList(name string) bool { return filepath.Ext(name) == ".conflist" }

// Originals returns the names that the .conf may have had of which this list was made, the likely one first.
func Originals(list string) []string {
	base := strings.TrimSuffix(list, ".conflist")
	if ext := filepath.Ext(base); ext == ".conf" || ext == ".json" {
		return []string{base, base + ".conf", base + ".json"}
	}
	return []string{base + ".conf", base + ".json"}
}

// Lists returns the names that the list made of a .conf may have. The second sorts before the first.
func Lists(conf string) []string {
	return []string{strings.TrimSuffix(conf, filepath.Ext(conf)) + ".conflist", conf + ".conflist"}
}

// Ours returns how often our entry is in the configuration.
func (c Conf) Ours() int { return len(c.ours) }

// Chained reports whether our entry is in the list once and last, and means the same as ours; nil stands for any entry
// of ours.
func (c Conf) Chained(ours []byte) bool {
	n := len(c.plugins)
	return n > 1 && len(c.ours) == 1 && c.ours[0] == n-1 && (ours == nil || Equal(c.plugins[n-1].of(c.data), ours))
}

// OnlyInlined reports whether the list tells libcni to read no drop-in files.
func (c Conf) OnlyInlined() bool {
	only, _ := last(c.members, "loadOnlyInlinedPlugins")
	return strings.EqualFold(strings.Trim(string(only.value.of(c.data)), `"`), "true")
}

// Standalone returns our entry as a file by itself, with the name and version that a network needs and an entry has
// not. It is nil for what is no JSON object.
func Standalone(ours []byte) []byte {
	all, err := members(ours)
	if err != nil {
		return nil
	}
	var add []string
	// Multus before OpenShift 4.23 has 0.3.1 itself. Where it has 0.4.0 or later and the runtime calls CHECK, as CRI-O
	// does after each ADD, it relays that to all networks of a pod, and an older one fails it.
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

// Indented returns a JSON object as the contents of a file.
func Indented(object []byte) []byte {
	var out bytes.Buffer
	_ = json.Indent(&out, object, "", "  ")
	out.WriteByte('\n')
	return out.Bytes()
}

// Equal reports whether two JSON texts mean the same, whatever their order and white space.
func Equal(a, b []byte) bool {
	decode := func(data []byte) (v any) {
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber()
		_ = d.Decode(&v)
		return v
	}
	return reflect.DeepEqual(decode(a), decode(b))
}

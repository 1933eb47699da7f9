package conflist

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/internal/invalid"
)

// wrapGap is the white space before our entry in a list made from a .conf. In a list that was one before, Splice uses
// the white space before the last entry, which is wrapIn here. So the two differ, and Unsplice can tell them apart.
const (
	wrapIn  = "\n    "
	wrapGap = " \n    "
)

// Splice returns the network configuration with our entry once, in the last place. A configuration of a single plugin
// (a .conf file) becomes a list with the same name and cniVersion. Every other byte stays as it is, in its place. A
// configuration that already has our entry there is returned unchanged, even if somebody else has formatted the entry.
//
// Unsplice(Splice(x)) is Unsplice(x), which is x if x does not have our entry.
func Splice(existing, ours []byte) ([]byte, error) {
	if entry.TypeOf(ours) != entry.Type {
		return nil, invalid.JSON("entry", string(ours), "", "a JSON object of the type "+entry.Type)
	}
	c, err := Parse(existing)
	if err != nil {
		return nil, err
	}
	if c.Chained(ours) {
		return existing, nil
	}
	clean := c.unspliced()
	if c, err = Parse(clean); err != nil {
		return nil, err
	}
	switch {
	case c.single && len(c.ours) > 0, !c.single && len(c.plugins) == 0 && len(existing) != len(clean):
		return nil, ErrOnlyOurs
	case c.single:
		return c.wrap(ours)
	case len(c.plugins) == 0:
		return nil, ErrNoPlugins
	}
	return c.insert(ours), nil
}

// Unsplice returns the network configuration without our entry: the original bytes, if nobody else has changed it
// since. A configuration without our entry is returned unchanged.
func Unsplice(existing []byte) ([]byte, error) {
	c, err := Parse(existing)
	if err != nil {
		return nil, err
	}
	return c.unspliced(), nil
}

// Without returns the list without our entries. Unlike Unsplice, it never turns a list back into a single plugin.
func Without(existing []byte) ([]byte, error) {
	c, err := Parse(existing)
	if err != nil {
		return nil, err
	}
	return c.remove(), nil
}

func (c Conf) unspliced() []byte {
	if original, ok := c.Original(); ok {
		return original
	}
	return c.remove()
}

// insert adds our entry after the last plugin, with that plugin's white space and format.
func (c Conf) insert(ours []byte) []byte {
	data := c.data
	end := c.plugins[len(c.plugins)-1]
	before := len(bytes.TrimRight(data[:end.start], whiteSpace))
	gap := style(string(data[before:end.start]), wrapIn)
	added := "," + gap + string(render(ours, end.of(data), gap, c.unit()))
	return slices.Concat(data[:end.end], []byte(added), data[end.end:])
}

// longestStyle is the longest white space in bytes that counts as a style: our entry repeats it in every line.
const longestStyle = 128

// style returns the white space, or instead if it is too long.
func style(space, instead string) string {
	if len(space) > longestStyle {
		return instead
	}
	return space
}

// unit returns the indentation of one level: that of the first key, if it is on a line of its own.
func (c Conf) unit() string {
	const usual = "  "
	data, start := c.data, c.members[0].at
	line := bytes.LastIndexByte(data[:start], '\n') + 1
	if unit := string(data[line:start]); line > 0 && unit != "" && strings.Trim(unit, " \t") == "" {
		return style(unit, usual)
	}
	return usual
}

// render formats our entry like its neighbour: on one line, or on several.
func render(ours, neighbour []byte, gap, unit string) []byte {
	var out bytes.Buffer
	newline := strings.LastIndexByte(gap, '\n')
	if !bytes.ContainsRune(neighbour, '\n') {
		_ = json.Compact(&out, ours) // valid: Splice has parsed it
		return out.Bytes()
	}
	_ = json.Indent(&out, bytes.TrimSpace(ours), strings.Trim(gap[newline+1:], "\r"), unit)
	if strings.Contains(gap, "\r\n") {
		return bytes.ReplaceAll(out.Bytes(), []byte("\n"), []byte("\r\n"))
	}
	return out.Bytes()
}

// remove removes our entries from a list, each with the separator before it. It undoes insert.
func (c Conf) remove() []byte {
	data := c.data
	if c.single {
		return data
	}
	var cuts []span
	leading := 0
	for leading < len(c.ours) && c.ours[leading] == leading {
		leading++
	}
	switch {
	case leading == len(c.plugins) && leading > 0:
		cuts = []span{{c.plugins[0].start, c.plugins[leading-1].end}}
	case leading > 0:
		cuts = []span{{c.plugins[0].start, c.plugins[leading].start}}
	}
	for _, i := range c.ours[leading:] {
		cuts = append(cuts, span{c.plugins[i-1].end, c.plugins[i].end})
	}
	if len(cuts) == 0 {
		return data
	}
	left, end := make([]byte, 0, len(data)), 0
	for _, cut := range cuts {
		left, end = append(left, data[end:cut.start]...), cut.end
	}
	return append(left, data[end:]...)
}

// wrap makes a list from a single plugin and our entry. White space around the object stays around the list.
func (c Conf) wrap(ours []byte) ([]byte, error) {
	if c.Name == "" {
		return nil, ErrNoName
	}
	data, object := c.data, c.plugins[0]
	var out bytes.Buffer
	out.Write(data[:object.start])
	out.WriteString("{\n")
	for _, key := range []string{"cniVersion", "name"} {
		if m, ok := last(c.members, key); ok {
			fmt.Fprintf(&out, "  %q: %s,\n", key, m.value.of(data))
		}
	}
	out.WriteString(`  "plugins": [` + wrapIn)
	out.Write(object.of(data))
	out.WriteString("," + wrapGap)
	out.Write(render(ours, []byte("\n"), wrapIn, "  "))
	out.WriteString("\n  ]\n}")
	out.Write(data[object.end:])
	return out.Bytes(), nil
}

// Original returns the text of the .conf from which Splice has made this list. The list is unchanged if wrapping that
// text again gives the same list; otherwise ok is false.
func (c Conf) Original() (original []byte, ok bool) {
	if c.single || len(c.plugins) != 2 || len(c.ours) != 1 || c.ours[0] != 1 {
		return nil, false
	}
	start := space(c.data, 0)
	object := c.plugins[0].of(c.data)
	original = slices.Concat(c.data[:start], object, c.data[value(c.data, start):])
	inner, err := Parse(original)
	if err != nil || !inner.single || len(inner.ours) > 0 {
		return nil, false
	}
	again, err := inner.wrap(c.plugins[1].of(c.data))
	return original, err == nil && bytes.Equal(again, c.data)
}

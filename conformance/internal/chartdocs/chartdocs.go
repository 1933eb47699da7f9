// Package chartdocs generates the descriptions of the chart's values, in its README and in its schema, from the
// comments in values.yaml, so that each description is written once.
package chartdocs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Value is a value of values.yaml, or a group of values.
type Value struct {
	Name    string // its path, with dots
	Comment string // the comment above it, in one line
	Default string // in JSON
	Group   bool   // an object whose keys are values of their own
}

// whole are the values that are objects and have no comment for each key.
var whole = []string{"resources", "agent.updateStrategy", "metrics.dashboard.labels"}

// Read returns the values of values.yaml in its order. A value without a comment is an error.
func Read(text []byte) (list []Value, err error) {
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, err
	}
	if len(document.Content) != 1 || document.Content[0].Kind != yaml.MappingNode {
		return nil, fmt.Errorf("values.yaml is no object")
	}
	return list, walk(&list, "", document.Content[0])
}

func walk(list *[]Value, prefix string, object *yaml.Node) error {
	for i := 0; i < len(object.Content); i += 2 {
		key, value := object.Content[i], object.Content[i+1]
		v := Value{Name: prefix + key.Value, Comment: oneLine(key.HeadComment)}
		v.Group = value.Kind == yaml.MappingNode && len(value.Content) > 0 && !slices.Contains(whole, v.Name)
		if v.Comment == "" {
			return fmt.Errorf("values.yaml: %s has no comment above it", v.Name)
		}
		var decoded any
		if err := value.Decode(&decoded); err != nil {
			return err
		}
		encoded, err := json.Marshal(decoded)
		if err != nil {
			return err
		}
		v.Default = string(encoded)
		*list = append(*list, v)
		if v.Group {
			if err := walk(list, v.Name+".", value); err != nil {
				return err
			}
		}
	}
	return nil
}

// oneLine returns a comment as one line, without its comment signs. Only the last paragraph counts: an empty line
// separates it from comments about something else.
func oneLine(comment string) string {
	paragraphs := strings.Split(comment, "\n\n")
	var words []string
	for line := range strings.Lines(paragraphs[len(paragraphs)-1]) {
		words = append(words, strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "#"))...)
	}
	return strings.Join(words, " ")
}

// Tree is the prefix of links in the chart's README. They are absolute, because the README is also published elsewhere.
const Tree = "https://github.com/istio-pod-network/controller/blob/main/"

var page = regexp.MustCompile(`docs/[a-z0-9-]+\.md(?:#[a-z0-9-]+)?`)

// Table returns the README's table of values, in Markdown.
func Table(values []Value) string {
	var table strings.Builder
	table.WriteString("| value | default | what it is |\n|---|---|---|\n")
	for _, v := range values {
		if v.Group {
			continue
		}
		text := page.ReplaceAllStringFunc(strings.ReplaceAll(v.Comment, "|", `\|`), func(link string) string {
			name, _, _ := strings.Cut(link, "#")
			return "[" + name + "](" + Tree + link + ")"
		})
		fmt.Fprintf(&table, "| `%s` | `%s` | %s |\n", v.Name, strings.Trim(v.Default, `"`), text)
	}
	return strings.ReplaceAll(table.String(), "| `` |", "| |")
}

const (
	begin = "<!-- Made of the comments in values.yaml by make chart-docs. -->\n"
	end   = "<!-- The end of what is made. -->\n"
)

// README returns the README's text with the table of values replaced. It is an error if one of the two markers is
// missing.
func README(text string, values []Value) (string, error) {
	before, rest, found := strings.Cut(text, begin)
	_, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		return "", fmt.Errorf("README.md lacks %q and %q", strings.TrimSpace(begin), strings.TrimSpace(end))
	}
	return before + begin + "\n" + Table(values) + "\n" + end + after, nil
}

// Schema returns the schema with the comments as descriptions. All other bytes stay the same. A value that the schema
// does not describe is an error.
func Schema(text []byte, values []Value) ([]byte, error) {
	e := editor{text: text, decoder: json.NewDecoder(bytes.NewReader(text)), want: map[string]string{}}
	for _, v := range values {
		e.want[v.Name] = plain(v.Comment)
	}
	if err := e.value(nil); err != nil {
		return nil, err
	}
	for _, v := range values {
		if !e.seen[v.Name] {
			return nil, fmt.Errorf("values.schema.json does not describe %s", v.Name)
		}
	}
	e.out.Write(text[e.copied:])
	return e.out.Bytes(), nil
}

// plain returns a comment as plain text for the schema: without backquotes and final period.
func plain(comment string) string {
	return strings.TrimSuffix(strings.ReplaceAll(comment, "`", ""), ".")
}

// editor copies a JSON text and replaces descriptions.
type editor struct {
	text    []byte
	decoder *json.Decoder
	want    map[string]string // descriptions by the names of values
	seen    map[string]bool
	out     bytes.Buffer
	copied  int64 // number of bytes of text that are in out
}

// value reads the JSON value at a path.
func (e *editor) value(path []string) error {
	token, err := e.decoder.Token()
	if err != nil {
		return err
	}
	delim, nested := token.(json.Delim)
	if !nested {
		return nil
	}
	for e.decoder.More() {
		below := path
		if delim == '{' {
			key, err := e.decoder.Token()
			if err != nil {
				return err
			}
			below = append(slices.Clone(path), key.(string))
		}
		if err := e.member(below); err != nil {
			return err
		}
	}
	_, err = e.decoder.Token()
	return err
}

// member reads the JSON value at a path, and replaces it if it is the description of a chart value.
func (e *editor) member(path []string) error {
	name, described := described(path)
	text, known := e.want[name]
	if !described || !known {
		return e.value(path)
	}
	start := e.decoder.InputOffset()
	start += int64(bytes.IndexByte(e.text[start:], '"'))
	if err := e.value(path); err != nil {
		return err
	}
	var quoted bytes.Buffer
	encoder := json.NewEncoder(&quoted)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(text); err != nil {
		return err
	}
	e.out.Write(e.text[e.copied:start])
	e.out.Write(bytes.TrimSpace(quoted.Bytes()))
	e.copied = e.decoder.InputOffset()
	if e.seen == nil {
		e.seen = map[string]bool{}
	}
	e.seen[name] = true
	return nil
}

// described returns the name of the chart value whose description is at a path of the schema. For the path properties,
// image, properties, tag, description it is image.tag.
func described(path []string) (name string, ok bool) {
	var names []string
	for i, key := range path {
		switch {
		case i == len(path)-1:
			return strings.Join(names, "."), key == "description" && i > 0 && i%2 == 0
		case i%2 == 1:
			names = append(names, key)
		case key != "properties":
			return "", false
		}
	}
	return "", false
}

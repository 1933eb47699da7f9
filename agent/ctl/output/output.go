// Package output writes the results of the operator's tool: as text for a person, or as JSON or YAML for a program.
package output

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf16"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/spf13/cobra"
	"golang.org/x/term"
	"sigs.k8s.io/yaml"
)

// APIVersion is the version of all JSON and YAML output. Keys may be added within a version, but the meaning of a key
// never changes.
const APIVersion = "pod-network-controller.istio.io/v1"

// Head is the beginning of each object.
type Head struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
}

// HeadOf returns the head of an object of a kind.
func HeadOf(kind string) Head { return Head{APIVersion, kind} }

// Finding is something that is not well, with what to do next.
type Finding struct {
	What string `json:"what"`
	Next string `json:"next"`
}

// Format is an output format.
type Format string

// Values of Format.
const (
	Table Format = "table"
	Wide  Format = "wide" // a table with all columns and full names
	JSON  Format = "json"
	YAML  Format = "yaml"
)

// Formats lists all values.
var Formats = []string{string(Table), string(Wide), string(JSON), string(YAML)}

// ParseFormat returns the format of that name. Its error names the valid ones.
func ParseFormat(text string) (Format, error) {
	for _, known := range Formats {
		if text == known {
			return Format(text), nil
		}
	}
	return "", outcome.Misuse(invalid.Text("--output", text, "unknown format", strings.Join(Formats, ", ")))
}

// Flag adds the flag for the format to a command.
func Flag(c *cobra.Command, format *string) {
	c.Flags().StringVarP(format, "output", "o", string(Table), "`format`: "+strings.Join(Formats, ", "))
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(Formats, cobra.ShellCompDirectiveNoFileComp))
}

// Writer writes to a user.
type Writer struct {
	Out     io.Writer
	Format  Format
	Colours bool
	Tool    string // the user's name for this program; "" for its own
}

// HasColours reports whether output to out should have colours: it is a terminal, and the environment does not set
// NO_COLOR (https://no-color.org).
func HasColours(out io.Writer, getenv func(string) string) bool {
	return IsTerminal(out) && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"
}

// IsTerminal reports whether a stream is a terminal.
func IsTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// ColumnsOf returns a terminal's number of columns, 0 if the stream is no terminal or does not report its size.
func ColumnsOf(stream any) int {
	file, ok := stream.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(file.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// Object writes an object as JSON or YAML. For text it calls table.
func (w Writer) Object(object any, table func(*Text)) error {
	var data []byte
	var err error
	switch w.Format {
	case JSON:
		data, err = indented(object)
		data = escaped(data, inJSON)
	case YAML:
		if data, err = indented(object); err != nil {
			return err
		}
		quoted := escaped(data, inYAML) // the library rejects some characters that are valid
		data, err = yaml.JSONToYAML(quoted)
		if Printable(string(data)) != string(data) {
			data = quoted // the library writes others unescaped; JSON is YAML, too, with all texts in quotes
		}
	default:
		text := &Text{Wide: w.Format == Wide, colours: w.Colours, tool: w.Tool}
		table(text)
		data = []byte(text.String())
	}
	if err == nil {
		_, err = w.Out.Write(data)
	}
	return err
}

func indented(object any) ([]byte, error) {
	data, err := json.MarshalIndent(object, "", "  ")
	return append(data, '\n'), err
}

// escaped replaces the characters that Printable replaces by escapes. A program reads the same text, but a terminal
// does not interpret them. JSON has such characters only in strings.
func escaped(data []byte, escape func(rune) string) []byte {
	var to strings.Builder
	for _, r := range string(data) {
		if graphic(r) {
			to.WriteRune(r)
		} else {
			to.WriteString(escape(r))
		}
	}
	return []byte(to.String())
}

// inJSON returns JSON's escape, with a surrogate pair for characters above U+FFFF. Source: RFC 8259, 7.
func inJSON(r rune) string {
	if high, low := utf16.EncodeRune(r); high != unicode.ReplacementChar {
		return fmt.Sprintf(`\u%04x\u%04x`, high, low)
	}
	return fmt.Sprintf(`\u%04x`, r)
}

// inYAML returns YAML's escape, which has no pairs. Source: YAML 1.2, 5.7.
func inYAML(r rune) string {
	if r > 0xffff {
		return fmt.Sprintf(`\U%08x`, r)
	}
	return fmt.Sprintf(`\u%04x`, r)
}

// Again starts a new output. On a terminal it clears the screen, because what was written before is out of date. In
// YAML it starts a new document. JSON objects follow each other. Source: ECMA-48, 8.3.21 (CUP) and 8.3.39 (ED).
func (w Writer) Again() {
	switch {
	case w.Format == YAML:
		_, _ = io.WriteString(w.Out, "---\n")
	case w.Colours && w.Format != JSON:
		_, _ = io.WriteString(w.Out, "\x1b[H\x1b[2J")
	}
}

// Package output writes what a command of the operator's tool has found: as text for a person, or as JSON or YAML for a
// program.
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

// APIVersion is that of all that is written as JSON or YAML. Keys may be added under it; none changes its meaning.
const APIVersion = "pod-network-controller.istio.io/v1"

// Head is what each object begins with.
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

// Format is how something is written.
type Format string

// The formats.
const (
	Table Format = "table"
	Wide  Format = "wide" // a table that leaves nothing out
	JSON  Format = "json"
	YAML  Format = "yaml"
)

// Formats lists them all.
var Formats = []string{string(Table), string(Wide), string(JSON), string(YAML)}

// ParseFormat reads one.
func ParseFormat(text string) (Format, error) {
	for _, known := range Formats {
		if text == known {
			return Format(text), nil
		}
	}
	return "", outcome.Misuse(invalid.Text("--output", text, "unknown format", strings.Join(Formats, ", ")))
}

// Flag gives a command the flag by which its user chooses the format.
func Flag(c *cobra.Command, format *string) {
	c.Flags().StringVarP(format, "output", "o", string(Table), "`format`: "+strings.Join(Formats, ", "))
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(Formats, cobra.ShellCompDirectiveNoFileComp))
}

// Writer writes to a user.
type Writer struct {
	Out     io.Writer
	Format  Format
	Colours bool
	Tool    string // its user's name for this program, "" for its own
}

// HasColours reports whether what is written to out is to have colours: it is a terminal, and the environment does not
// say NO_COLOR (https://no-color.org).
func HasColours(out io.Writer, getenv func(string) string) bool {
	return IsTerminal(out) && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"
}

// IsTerminal reports whether a stream is one.
func IsTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// ColumnsOf is how many columns a terminal has, 0 for what is none, or does not say.
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

// Object writes an object as JSON or YAML, or by table as text.
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
		quoted := escaped(data, inYAML) // the library refuses some characters that are not
		data, err = yaml.JSONToYAML(quoted)
		if Printable(string(data)) != string(data) {
			data = quoted // the library writes others as they are; JSON is YAML, too, with all text in quotes
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

// escaped writes the characters that Printable replaces as escapes: a program reads the same text, and a terminal is
// not steered. Outside its strings JSON has no such character.
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

// inJSON is the escape of JSON, which has a pair for what does not fit in four digits. Source: RFC 8259, 7.
func inJSON(r rune) string {
	if high, low := utf16.EncodeRune(r); high != unicode.ReplacementChar {
		return fmt.Sprintf(`\u%04x\u%04x`, high, low)
	}
	return fmt.Sprintf(`\u%04x`, r)
}

// inYAML is the escape of YAML, which knows no pairs. Source: YAML 1.2, 5.7.
func inYAML(r rune) string {
	if r > 0xffff {
		return fmt.Sprintf(`\U%08x`, r)
	}
	return fmt.Sprintf(`\u%04x`, r)
}

// Again begins anew: on a terminal, where what was written before is out of date, with an empty screen, and in YAML
// with another document. Objects of JSON follow each other as they are. Source: ECMA-48, 8.3.21 (CUP) and 8.3.39 (ED).
func (w Writer) Again() {
	switch {
	case w.Format == YAML:
		_, _ = io.WriteString(w.Out, "---\n")
	case w.Colours && w.Format != JSON:
		_, _ = io.WriteString(w.Out, "\x1b[H\x1b[2J")
	}
}

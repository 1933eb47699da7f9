package output

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/istio-pod-network/controller/internal/columns"
)

// Width is how many columns text has at most.
const Width = 100

// Colour is one of a terminal's.
type Colour string

// The colours. Source: ECMA-48, 8.3.117 (SGR).
const (
	Plain  Colour = ""
	Bold   Colour = "1"
	Red    Colour = "31"
	Green  Colour = "32"
	Yellow Colour = "33"
)

// Text is text for a person.
type Text struct {
	Wide    bool // nothing is left out
	colours bool
	tool    string
	strings.Builder
}

// own is how texts name this program, before a command of it.
const own = "istio-pod-networkctl "

// called is a text that names the program as its user does, who may have it as kubectl's alone.
func (t *Text) called(text string) string {
	if t.tool == "" {
		return text
	}
	return strings.ReplaceAll(text, own, t.tool+" ")
}

// Line writes a line, in a colour where there are colours. What is longer than a line goes on below it.
func (t *Text) Line(colour Colour, format string, args ...any) {
	t.indented(colour, "", fmt.Sprintf(format, args...))
}

// Item writes a line of a list: what it is, and its text beside it.
func (t *Text) Item(name, format string, args ...any) {
	t.indented(Plain, "  "+name+" ", fmt.Sprintf(format, args...))
}

// Verdict writes a line of a list: the sign of a verdict, and a text beside it.
func (t *Text) Verdict(verdict Verdict, format string, args ...any) {
	colour, sign := verdict.Colour(), verdict.Sign()
	lines := wrap(t.called(fmt.Sprintf(format, args...)), Width-len("  ")-columns.Of(sign+" "))
	for i, line := range lines {
		prefix := "  " + t.paint(colour, sign) + " "
		if i > 0 {
			prefix = strings.Repeat(" ", columns.Of("  "+sign+" "))
		}
		t.WriteString(prefix + line + "\n")
	}
}

// Below writes a line that belongs to what is above.
func (t *Text) Below(format string, args ...any) {
	t.indented(Plain, "  ", fmt.Sprintf(format, args...))
}

// Finding writes a finding about something, by the verdict that it has led to.
func (t *Text) Finding(verdict Verdict, about string, f Finding) {
	t.Line(verdict.Colour(), "%s %s: %s", verdict.Sign(), about, f.What)
	t.Item("->", "%s", f.Next)
}

// NotLookedAt writes what was not looked at, each with its reason, apart from what is above.
func (t *Text) NotLookedAt(all []string) {
	if len(all) > 0 {
		t.WriteByte('\n')
	}
	for _, what := range all {
		t.Line(Yellow, "Not looked at: %s.", what)
	}
}

// Drawn writes lines as they are: of a table, or of a picture.
func (t *Text) Drawn(lines string) { t.WriteString(Printable(lines)) }

// indented writes a text behind a prefix, its further lines below its first.
func (t *Text) indented(colour Colour, prefix, text string) {
	for i, line := range wrap(t.called(text), Width-columns.Of(prefix)) {
		if i > 0 {
			prefix = strings.Repeat(" ", columns.Of(prefix))
		}
		t.WriteString(strings.TrimRight(prefix+t.paint(colour, line), " ") + "\n")
	}
}

func (t *Text) paint(colour Colour, text string) string {
	if !t.colours || colour == Plain || text == "" {
		return text
	}
	return "\x1b[" + string(colour) + "m" + text + "\x1b[0m"
}

// Columns writes rows, the first of which is the heading, in columns, indented by two. What does not fit into a line
// goes on below, in its column.
func (t *Text) Columns(rows [][]string) {
	const indent, between = "  ", "  "
	widths := widthsOf(rows, Width-len(indent)-len(between)*(len(rows[0])-1))
	for n, row := range rows {
		colour := Plain
		if n == 0 {
			colour = Bold
		}
		cells, height := make([][]string, len(row)), 0
		for i, text := range row {
			cells[i] = wrap(text, widths[i])
			height = max(height, len(cells[i]))
		}
		for i := range height {
			line := ""
			for j, cell := range cells {
				text := ""
				if i < len(cell) {
					text = cell[i]
				}
				line += text + strings.Repeat(" ", max(0, widths[j]-columns.Of(text))) + between
			}
			t.WriteString(indent + t.paint(colour, strings.TrimRight(line, " ")) + "\n")
		}
	}
}

// widthsOf returns the widths of columns that have so many characters together: what each needs, and where that is too
// much the widest less.
func widthsOf(rows [][]string, together int) []int {
	widths, sum := make([]int, len(rows[0])), 0
	for i := range widths {
		for _, row := range rows {
			widths[i] = max(widths[i], columns.Of(row[i]))
		}
		widths[i] = min(widths[i], together)
		sum += widths[i]
	}
	for ; sum > together; sum-- {
		widths[slices.Index(widths, slices.Max(widths))]--
	}
	return widths
}

// Printable is a text whose characters that steer a terminal, or turn its direction, are a mark each: annotations,
// Events, logs and the names of others' rules are by whoever made them.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if graphic(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

func graphic(r rune) bool { return unicode.IsGraphic(r) || r == '\n' || r == '\t' }

// fitting is the part of a word that fits into so many columns, but at least its first character.
func fitting(word string, width int) string {
	_, first := utf8.DecodeRuneInString(word)
	return word[:max(first, len(columns.Head(word, width)))]
}

// wrap breaks a text into lines of at most width columns: between words, or inside a word that is longer behind a
// character that separates its parts.
func wrap(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(Printable(text)) {
		if line != "" && columns.Of(line)+1+columns.Of(word) > width {
			lines, line = append(lines, line), ""
		}
		for columns.Of(word) > width {
			head := fitting(word, width)
			if at := strings.LastIndexAny(head, "/,.:=-"); at > 0 {
				head = head[:at+1]
			}
			lines, word = append(lines, head), word[len(head):]
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

package output

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/istio-pod-network/controller/internal/columns"
)

// Width is the largest number of columns of text output.
const Width = 100

// Colour is a colour of terminals.
type Colour string

// Values of Colour. Source: ECMA-48, 8.3.117 (SGR).
const (
	Plain  Colour = ""
	Bold   Colour = "1"
	Red    Colour = "31"
	Green  Colour = "32"
	Yellow Colour = "33"
)

// Text is text output for a person.
type Text struct {
	Wide    bool // everything is shown
	colours bool
	tool    string
	strings.Builder
}

// own is the name of this program in texts, before a command.
const own = "istio-pod-networkctl "

// called replaces the program's name in a text by the user's name for it, for example that of the kubectl plugin.
func (t *Text) called(text string) string {
	if t.tool == "" {
		return text
	}
	return strings.ReplaceAll(text, own, t.tool+" ")
}

// Line writes a line, in a colour if there are colours. A longer text continues on the next lines.
func (t *Text) Line(colour Colour, format string, args ...any) {
	t.indented(colour, "", fmt.Sprintf(format, args...))
}

// Item writes an item of a list: a name, and its text beside it.
func (t *Text) Item(name, format string, args ...any) {
	t.indented(Plain, "  "+name+" ", fmt.Sprintf(format, args...))
}

// Verdict writes an item of a list: the sign of a verdict, and a text beside it.
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

// Below writes an indented line that belongs to the line above.
func (t *Text) Below(format string, args ...any) {
	t.indented(Plain, "  ", fmt.Sprintf(format, args...))
}

// Finding writes a finding about something, with the verdict to which it has led.
func (t *Text) Finding(verdict Verdict, about string, f Finding) {
	t.Line(verdict.Colour(), "%s %s: %s", verdict.Sign(), about, f.What)
	t.Item("->", "%s", f.Next)
}

// NotLookedAt writes a list of what was not looked at, each with its reason, after an empty line.
func (t *Text) NotLookedAt(all []string) {
	if len(all) > 0 {
		t.WriteByte('\n')
	}
	for _, what := range all {
		t.Line(Yellow, "Not looked at: %s.", what)
	}
}

// Drawn writes lines of a table or a picture unchanged.
func (t *Text) Drawn(lines string) { t.WriteString(Printable(lines)) }

// indented writes a text after a prefix, with its further lines below the first one.
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

// Columns writes rows in columns, indented by two. The first row has the headings. A text that does not fit continues
// below, in its column.
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

// widthsOf returns the widths of columns that have that many characters together. Each column gets what it needs. If
// that is too much, the widest ones get less.
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

// Printable replaces control characters and those that change the direction of text by a mark: others may write them
// into annotations, Events, logs and names of rules.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if graphic(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

func graphic(r rune) bool { return unicode.IsGraphic(r) || r == '\n' || r == '\t' }

// fitting returns the part of a word that fits into that many columns, at least its first character.
func fitting(word string, width int) string {
	_, first := utf8.DecodeRuneInString(word)
	return word[:max(first, len(columns.Head(word, width)))]
}

// wrap breaks a text into lines of at most width columns: between words, or inside a longer word after a character that
// separates its parts.
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

package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// width is the number of columns that the demo uses.
const width = 118

// Colors, as ANSI codes.
const (
	bold  = "1"
	red   = "31"
	green = "32"
	dim   = "2"
)

// page is the demo's output.
type page struct {
	color  bool
	titles int
	wrong  int // number of wrong results
}

func newPage(noColor bool) *page {
	_, err := unix.IoctlGetTermios(int(os.Stdout.Fd()), unix.TCGETS)
	return &page{color: err == nil && !noColor && os.Getenv("NO_COLOR") == ""}
}

func (p *page) paint(color, text string) string {
	if !p.color {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// title starts the next section.
func (p *page) title(text string) {
	p.titles++
	fmt.Println("\n" + p.paint(bold, fmt.Sprintf("%d. %s", p.titles, text)))
}

// text prints prose.
func (p *page) text(format string, args ...any) {
	for _, line := range wrap(fmt.Sprintf(format, args...), "   ", "   ") {
		fmt.Println(line)
	}
}

// command prints a command that is about to run.
func (p *page) command(text string) {
	for _, line := range wrap(text, "   # ", "       ") {
		fmt.Println(p.paint(bold, line))
	}
}

// printed prints the output of a program.
func (p *page) printed(text string) {
	for _, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		if strings.TrimSpace(line) == "" {
			continue
		}
		rest := strings.TrimLeft(line, "\t ")
		indent := "   " + strings.Repeat("  ", len(line)-len(rest))
		for _, part := range wrap(rest, indent, indent+"    ") {
			fmt.Println(p.paint(dim, part))
		}
	}
}

// verdict prints a result. A wrong one makes the demo fail.
func (p *page) verdict(ok bool, format string, args ...any) {
	lines := wrap(fmt.Sprintf(format, args...), p.mark(ok), "     ")
	fmt.Println(strings.Join(lines, "\n"))
}

// mark returns the beginning of a line with a right or wrong result, and counts wrong ones.
func (p *page) mark(ok bool) string {
	if ok {
		return p.paint(green, "  ok ")
	}
	p.wrong++
	return p.paint(red, "  NO ")
}

// wrap breaks text between words where it is wider than the page.
func wrap(text, first, next string) (lines []string) {
	line, empty := first, true
	for _, word := range strings.Split(text, " ") {
		if !empty && len([]rune(line))+1+len([]rune(word)) > width {
			lines, line, empty = append(lines, line), next, true
		}
		if !empty {
			line += " "
		}
		line, empty = line+word, false
	}
	return append(lines, line)
}

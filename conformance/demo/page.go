package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// width is how many columns the demo uses.
const width = 118

// Colors, as their ANSI codes.
const (
	bold  = "1"
	red   = "31"
	green = "32"
	dim   = "2"
)

// page is what the person reads.
type page struct {
	color  bool
	titles int
	wrong  int // things that were not as they should be
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

// text is prose.
func (p *page) text(format string, args ...any) {
	for _, line := range wrap(fmt.Sprintf(format, args...), "   ", "   ") {
		fmt.Println(line)
	}
}

// command shows what is about to run.
func (p *page) command(text string) {
	for _, line := range wrap(text, "   # ", "       ") {
		fmt.Println(p.paint(bold, line))
	}
}

// printed shows what a program printed.
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

// verdict states something that was found out; bad ones make the demo fail.
func (p *page) verdict(ok bool, format string, args ...any) {
	lines := wrap(fmt.Sprintf(format, args...), p.mark(ok), "     ")
	fmt.Println(strings.Join(lines, "\n"))
}

// mark starts a line that is right or wrong, and counts the wrong ones.
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

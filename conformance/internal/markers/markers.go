// Package markers puts what a program has measured into a page of the documentation.
package markers

import (
	"fmt"
	"strings"
)

const end = "<!-- to here -->\n"

// Insert replaces what stands in a page between the markers of a command, such as "make scale DOCS=1".
func Insert(page, command, text string) (string, error) {
	before, _, after, err := cut(page, command)
	if err != nil {
		return "", err
	}
	return before + text + after, nil
}

// Section returns what stands there.
func Section(page, command string) (string, error) {
	_, section, _, err := cut(page, command)
	return section, err
}

// cut parts a page: the markers stay with what is around the section.
func cut(page, command string) (before, section, after string, err error) {
	begin := "<!-- " + command + " writes from here -->\n"
	before, rest, found := strings.Cut(page, begin)
	section, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return "", "", "", fmt.Errorf("the page has no markers of %s", command)
	}
	return before + begin, section, end + after, nil
}

// Package markers writes what a program has measured into a page of the documentation, between two marker comments.
package markers

import (
	"fmt"
	"strings"
)

const end = "<!-- to here -->\n"

// Insert returns the page with the text between the markers of a command, such as "make scale DOCS=1", replaced.
// Missing markers are an error.
func Insert(page, command, text string) (string, error) {
	before, _, after, err := cut(page, command)
	if err != nil {
		return "", err
	}
	return before + text + after, nil
}

// Section returns the text between the markers of a command.
func Section(page, command string) (string, error) {
	_, section, _, err := cut(page, command)
	return section, err
}

// cut splits a page at the markers of a command. The markers are in before and after.
func cut(page, command string) (before, section, after string, err error) {
	begin := "<!-- " + command + " writes from here -->\n"
	before, rest, found := strings.Cut(page, begin)
	section, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return "", "", "", fmt.Errorf("the page has no markers of %s", command)
	}
	return before + begin, section, end + after, nil
}

// Package markers puts what a program has measured into a page of the documentation.
package markers

import (
	"fmt"
	"strings"
)

const end = "<!-- to here -->\n"

// Insert replaces what stands in a page between the markers of a command, such as "make scale DOCS=1".
func Insert(page, command, text string) (string, error) {
	begin := "<!-- " + command + " writes from here -->\n"
	before, rest, found := strings.Cut(page, begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return "", fmt.Errorf("the page has no markers of %s", command)
	}
	return before + begin + text + end + after, nil
}

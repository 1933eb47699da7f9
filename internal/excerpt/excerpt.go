// Package excerpt shortens a text that repeats what somebody else wrote, and that may so be huge. It cuts between
// words, never inside a name, and shows where.
package excerpt

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// longest is the length of the longest name, that of a DNS name, in bytes. What is longer is no name.
	longest = 253
	// between are the characters that separate words.
	between = " \t\r\n,;"
	mark    = "…"
)

// Quote returns a value in Go's quotes, or the beginning of a value that is longer than every name.
func Quote(value string) string { return strconv.Quote(Value(value)) }

// Value returns a value, or the beginning of a value that is longer than every name.
func Value(value string) string { return Head(value, longest) }

// Head returns the text, or as much of its beginning as fits into limit bytes together with "…".
func Head(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return text[:before(text, limit-len(mark))] + mark
}

// Ends returns the text, or of one that is longer than head and tail together, in bytes, at most these two ends, with
// " … " between them.
func Ends(text string, head, tail int) string {
	if len(text) <= head+tail {
		return text
	}
	return text[:before(text, head)] + " " + mark + " " + text[after(text, len(text)-tail):]
}

// before returns the last place up to limit where a word ends, or inside a word that is no name a character does.
func before(text string, limit int) int {
	if i := strings.LastIndexAny(text[:limit], between); i >= max(0, limit-longest) {
		return i + 1
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return limit
}

// after is before, for the first place from start on.
func after(text string, start int) int {
	if i := strings.IndexAny(text[start:], between); i >= 0 && i <= longest {
		return start + i + 1
	}
	for start < len(text) && !utf8.RuneStart(text[start]) {
		start++
	}
	return start
}

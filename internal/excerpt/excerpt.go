// Package excerpt shortens texts that repeat what others wrote, and that may be huge. It cuts between words, never
// inside a name, and marks the cut.
package excerpt

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// longest is the length in bytes of the longest name, a DNS name (RFC 1035, section 2.3.4). Longer words are not
	// names.
	longest = 253
	// between are the characters that separate words.
	between = " \t\r\n,;"
	mark    = "…"
)

// Quote returns the value in Go's quotes. Of a value that is longer than any name it quotes the start.
func Quote(value string) string { return strconv.Quote(Value(value)) }

// Value returns the value, or the start of a value that is longer than any name.
func Value(value string) string { return Head(value, longest) }

// Head returns the text, or as much of its start as fits into limit bytes together with "…".
func Head(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return text[:before(text, limit-len(mark))] + mark
}

// Ends returns the text. If it is longer than head and tail bytes together, it returns at most so many bytes of both
// ends, with " … " between them.
func Ends(text string, head, tail int) string {
	if len(text) <= head+tail {
		return text
	}
	return text[:before(text, head)] + " " + mark + " " + text[after(text, len(text)-tail):]
}

// before returns the last position up to limit at which a word ends. Inside a word that is not a name it returns that
// of a character.
func before(text string, limit int) int {
	if i := strings.LastIndexAny(text[:limit], between); i >= max(0, limit-longest) {
		return i + 1
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return limit
}

// after returns the first such position from start on.
func after(text string, start int) int {
	if i := strings.IndexAny(text[start:], between); i >= 0 && i <= longest {
		return start + i + 1
	}
	for start < len(text) && !utf8.RuneStart(text[start]) {
		start++
	}
	return start
}

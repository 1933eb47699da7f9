// Package columns measures texts by the columns of a terminal that they take.
package columns

import (
	"unicode/utf8"

	"golang.org/x/text/width"
)

// Of is how many columns a text takes: a wide character takes two. Source: Unicode, UAX #11.
func Of(text string) (count int) {
	for _, r := range text {
		count += OfRune(r)
	}
	return count
}

// OfRune is Of a single character.
func OfRune(r rune) int {
	if kind := width.LookupRune(r).Kind(); kind == width.EastAsianWide || kind == width.EastAsianFullwidth {
		return 2
	}
	return 1
}

// Head is the part of a text that fits into so many columns.
func Head(text string, most int) string {
	end := 0
	for count := 0; end < len(text); {
		r, size := utf8.DecodeRuneInString(text[end:])
		if count += OfRune(r); count > most {
			break
		}
		end += size
	}
	return text[:end]
}

package excerpt

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestHead(t *testing.T) {
	name := strings.Repeat("n", longest)
	for text, want := range map[string]string{
		"":                          "",
		"short":                     "short",
		name:                        name,
		"80,443," + name:            "80,443,…",
		"the names are " + name:     "the names are …",
		name + "n":                  strings.Repeat("n", longest-len(mark)) + mark,
		strings.Repeat("é", 200):    strings.Repeat("é", (longest-len(mark))/2) + mark,
		strings.Repeat("\x80", 300): mark,
	} {
		if got := Head(text, longest); got != want {
			t.Errorf("%q became %q, want %q", text, got, want)
		}
	}
	if got := Quote("a\nb"); got != `"a\nb"` {
		t.Error(got)
	}
}

func TestEnds(t *testing.T) {
	names := strings.Repeat("shop/cart-0 ", 100)
	if got, want := Ends(names, 30, 20), "shop/cart-0 shop/cart-0  … shop/cart-0 "; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for _, text := range []string{"", "short", strings.Repeat("é", 400), strings.Repeat("é", 401),
		strings.Repeat("xé", 5000),
		strings.Repeat("x", 490) + " " + strings.Repeat("y", 20) + " " + strings.Repeat("z", 500)} {
		got := Ends(text, 500, 300)
		if len(text) <= 800 && got != text || len(got) > 800+len(" … ") || !utf8.ValidString(got) {
			t.Errorf("%d bytes became %d: %q", len(text), len(got), got)
		}
	}
}

// No word up to the longest name's length is ever cut.
func TestNoNameIsCut(t *testing.T) {
	words := map[string]bool{mark: true}
	var text strings.Builder
	for i := range 60 {
		word := strings.Repeat(string(rune('a'+i%26)), 1+i*37%longest)
		words[word] = true
		text.WriteString(word + " ")
	}
	for limit := longest + len(mark) + 1; limit < text.Len(); limit++ {
		for _, got := range []string{Head(text.String(), limit), Ends(text.String(), limit/2+longest, longest+1)} {
			for _, word := range strings.Fields(strings.ReplaceAll(got, mark, " "+mark+" ")) {
				if !words[word] {
					t.Fatalf("limit %d: %q is no word of the text", limit, word)
				}
			}
		}
	}
}

package golden

import (
	"strings"
	"testing"
)

// failing counts the errors of a test.
type failing struct {
	testing.TB
	errors int
}

func (*failing) Helper() {}

func (f *failing) Errorf(string, ...any) { f.errors++ }

// What counts are columns of a terminal, of which a wide character takes two, and not characters or bytes.
func TestFits(t *testing.T) {
	for text, want := range map[string]int{
		strings.Repeat("ä", 10) + "\n" + strings.Repeat("x", 10): 0, strings.Repeat("x", 11) + "\n\n": 1, "限界限界限": 0,
		"限界限界限界\nx限界限界限\n": 2,
	} {
		f := &failing{TB: t}
		if Fits(f, "it", text, 10); f.errors != want {
			t.Errorf("%q: %d errors, want %d", text, f.errors, want)
		}
	}
}

func TestDifference(t *testing.T) {
	for _, c := range []struct{ got, want, difference string }{
		{"a\nb\n", "a\nb\n", "equal"},
		{"a\nb\n", "a\nc\n", "line 2\n got b\nwant c"},
		{"a\n", "a\nb\n", "line 2\n got \nwant b"},
		{"a\nb\nc", "a\nb", "line 3\n got c\nwant (the end)"},
	} {
		if difference := Difference(c.got, c.want); difference != c.difference {
			t.Errorf("%q and %q: %q, want %q", c.got, c.want, difference, c.difference)
		}
	}
}

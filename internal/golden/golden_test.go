package golden

import "testing"

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

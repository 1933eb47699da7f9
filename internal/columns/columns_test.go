package columns

import "testing"

func TestColumns(t *testing.T) {
	for _, test := range []struct {
		text  string
		count int
		head  string // of five columns
	}{
		{"", 0, ""}, {"abc", 3, "abc"}, {"abcdef", 6, "abcde"}, {"äöüß ✓─", 7, "äöüß "}, {"限界限", 6, "限界"},
		{"ｗide", 5, "ｗide"}, {"a限界限", 7, "a限界"}, {"ab\xffcd\xff", 6, "ab\xffcd"},
	} {
		if got := Of(test.text); got != test.count {
			t.Errorf("%q: %d, want %d", test.text, got, test.count)
		}
		if got := Head(test.text, 5); got != test.head {
			t.Errorf("%q: %q, want %q", test.text, got, test.head)
		}
	}
}

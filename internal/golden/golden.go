// Package golden compares what tests have made with files that say what it should be. It is part of no product.
package golden

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Compare fails the test if got is not what the file at path says. With -update it writes the file, for a person to
// read.
func Compare(t testing.TB, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: %s\nsee whether it is meant, then go test -update", path, Difference(got, string(want)))
	}
}

// Fits fails the test for every line of a text that is longer than so many columns.
func Fits(t testing.TB, what, text string, columns int) {
	t.Helper()
	for line := range strings.Lines(text) {
		if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > columns {
			t.Errorf("%s: longer than %d columns: %s", what, columns, line)
		}
	}
}

// Difference returns the first line in which two texts differ, as each has it.
func Difference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		if a, b := at(g, i), at(w, i); a != b {
			return fmt.Sprintf("line %d\n got %s\nwant %s", i+1, a, b)
		}
	}
	return "equal"
}

// at returns a line, or that there is none.
func at(lines []string, i int) string {
	if i >= len(lines) {
		return "(the end)"
	}
	return lines[i]
}

// Package golden compares the output of tests with golden files. It is not part of any product.
package golden

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/columns"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Compare fails the test if got differs from the file at path. With -update it writes the file, which a person then has
// to review.
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

// Fits fails the test for every line of the text that takes more than most columns of a terminal.
func Fits(t testing.TB, what, text string, most int) {
	t.Helper()
	for line := range strings.Lines(text) {
		if columns.Of(strings.TrimSuffix(line, "\n")) > most {
			t.Errorf("%s: longer than %d columns: %s", what, most, line)
		}
	}
}

// Difference returns the first line in which two texts differ, from both.
func Difference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(g), len(w)) {
		if a, b := at(g, i), at(w, i); a != b {
			return fmt.Sprintf("line %d\n got %s\nwant %s", i+1, a, b)
		}
	}
	return "equal"
}

// at returns line i, or a text that says that there is none.
func at(lines []string, i int) string {
	if i >= len(lines) {
		return "(the end)"
	}
	return lines[i]
}

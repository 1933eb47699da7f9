package check

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// A primary that counts as known to work is in the page, and each primary with a DaemonSet is in the list.
func TestPrimariesAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(string(page), "\n")
	for _, p := range primaries {
		if p.row != "" && !slices.ContainsFunc(rows, func(row string) bool {
			cell, _, _ := strings.Cut(strings.TrimPrefix(row, "| "), " |")
			return strings.HasPrefix(row, "| ") && strings.Contains(cell, p.row)
		}) {
			t.Errorf("%s: docs/compatibility.md has no row about %q", p.name, p.row)
		}
	}
	for set, name := range daemonSets {
		if !slices.ContainsFunc(primaries, func(p primary) bool { return p.name == name }) {
			t.Errorf("DaemonSet %s: %q is no primary that is known", set, name)
		}
	}
}

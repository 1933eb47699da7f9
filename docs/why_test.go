package docs

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// rowsOf are those of the first table below a heading of a page, each as its cells.
func rowsOf(t *testing.T, page, heading string) (rows [][]string) {
	t.Helper()
	_, table, found := strings.Cut(section(t, page, heading), "\n|---")
	if !found {
		t.Fatalf("%s has no table below %q", page, heading)
	}
	_, table, _ = strings.Cut(table, "\n")
	table, _, _ = strings.Cut(table, "\n\n")
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		rows = append(rows, cells)
	}
	return rows
}

// Each row about ambient and Linkerd, which were read and not run, names the pages that it was read in, and each of
// these the version. A cell that says nothing has none.
func TestReadRowsNameTheirPages(t *testing.T) {
	const page = "why.md"
	var rows [][]string
	for _, heading := range []string{"What each needs", "What each does when something is wrong"} {
		rows = append(rows, rowsOf(t, page, heading)...)
	}
	_, sources, found := strings.Cut(read(t, page), "\n### What each row about ambient and Linkerd was read in\n")
	if !found {
		t.Fatal("no section about where each row was read")
	}
	_, table, _ := strings.Cut(sources, "\n|---|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	definition := regexp.MustCompile(`(?m)^\[([a-z-]+)\]: (\S+)$`)
	pinned := regexp.MustCompile(`^https://(github\.com/[a-z0-9/-]+/blob/([0-9a-f]{12})/\S+|linkerd\.io/\d+\.\d+/\S+)$`)
	versions, _, _ := strings.Cut(section(t, page, "Sources that were read"), "\n### ")
	addresses, used := map[string]string{}, map[string]bool{}
	for _, match := range definition.FindAllStringSubmatch(sources, -1) {
		addresses[match[1]] = match[2]
		version := pinned.FindStringSubmatch(match[2])
		if version == nil || !strings.Contains(versions, " at "+version[2]) {
			t.Errorf("%s: no version that is among the sources", match[0])
		}
	}
	reference := regexp.MustCompile(`\]\[([a-z-]+)\]`)
	lines := strings.Split(table, "\n")
	if len(lines) != len(rows) {
		t.Fatalf("%d rows say where they were read, of %d", len(lines), len(rows))
	}
	for i, row := range rows {
		where := strings.Split(strings.Trim(lines[i], "| "), " | ")
		if len(where) != 3 || len(row) != 6 || where[0] != row[0] {
			t.Errorf("not about %q: %q", row[0], where)
			continue
		}
		for column, said := range row[4:] { // ambient, linkerd-cni
			names := reference.FindAllStringSubmatch(where[1+column], -1)
			if nothing := slices.Contains([]string{"–", "not in what was read"}, said); nothing != (len(names) == 0) {
				t.Errorf("%s: %q was read in %q", row[0], said, where[1+column])
			}
			for _, name := range names {
				used[name[1]] = true
				if addresses[name[1]] == "" {
					t.Errorf("%s: no page is %s", row[0], name[1])
				}
			}
		}
	}
	for name := range addresses {
		if !used[name] {
			t.Errorf("no row was read in %s", name)
		}
	}
}

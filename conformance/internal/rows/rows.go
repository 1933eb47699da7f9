// Package rows reads and writes the table of the end-to-end scenarios' results. A run prints it, and updates it in a
// page of the documentation.
package rows

import (
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
)

// head is the table's header.
var head = Row{"scenario", "outcome", "time", "attempts", "leaks", "resets", "control", "measured"}

// Row has the cells of one scenario. The first is its name. The last may be empty.
type Row [8]string

// Write writes a table.
func Write(out io.Writer, list []Row) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range append([]Row{head}, list...) {
		fmt.Fprintln(table, strings.TrimRight(strings.Join(row[:], "\t"), "\t"))
	}
	return table.Flush()
}

// fence matches a table in a page, and gap the space between two cells.
var (
	fence = regexp.MustCompile("(?m)^```\nscenario .*\n((?:.+\n)*)```$")
	gap   = regexp.MustCompile(` {2,}`)
)

// Read returns the rows of the table in a page.
func Read(page string) (list []Row, err error) {
	table := fence.FindStringSubmatch(page)
	if table == nil {
		return nil, fmt.Errorf("the page has no table that begins with %q", head[0])
	}
	for line := range strings.Lines(table[1]) {
		cells := gap.Split(strings.TrimSpace(line), -1)
		if len(cells) != len(Row{}) && len(cells) != len(Row{})-1 {
			return nil, fmt.Errorf("row %q: %d cells instead of %d or %d", strings.TrimSpace(line), len(cells), len(Row{})-1,
				len(Row{}))
		}
		var row Row
		copy(row[:], cells)
		list = append(list, row)
	}
	return list, nil
}

// Merge returns the page with the rows of successful scenarios added, or replaced if the page has them. Rows are sorted
// by name.
func Merge(page string, ran []Row) (string, error) {
	list, err := Read(page)
	if err != nil {
		return "", err
	}
	byName := map[string]Row{}
	for _, row := range list {
		byName[row[0]] = row
	}
	for _, row := range ran {
		if row[1] == "ok" {
			byName[row[0]] = row
		}
	}
	var table strings.Builder
	merged := slices.SortedFunc(maps.Values(byName), func(a, b Row) int { return strings.Compare(a[0], b[0]) })
	if err := Write(&table, merged); err != nil {
		return "", err
	}
	return fence.ReplaceAllLiteralString(page, "```\n"+table.String()+"```"), nil
}

// Update merges rows into the page at path. It locks the page, so several runs may do so at once.
func Update(path string, ran []Row) error {
	page, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer page.Close()
	if err := syscall.Flock(int(page.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", path, err)
	}
	text, err := io.ReadAll(page)
	if err != nil {
		return err
	}
	merged, err := Merge(string(text), ran)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := page.Truncate(0); err != nil {
		return err
	}
	_, err = page.WriteAt([]byte(merged), 0)
	return err
}

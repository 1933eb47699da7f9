package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/istio-pod-network/controller/internal/columns"
)

// tree is how pages that are also read elsewhere name files of the repository.
const tree = "https://github.com/istio-pod-network/controller/blob/main/"

// all are the pages, and that of the chart.
func all(t *testing.T) []string {
	t.Helper()
	charts, err := filepath.Glob(filepath.Join(root, "chart", "*", "README.md"))
	if err != nil || len(charts) != 1 {
		t.Fatalf("%q, %v", charts, err)
	}
	return append(pages(t), charts...)
}

var (
	code    = regexp.MustCompile("(?s)```.*?\n```|`[^`\n]*`")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#{1,6} +(.*)$`)
)

// anchors are those of a page's headings, as GitHub makes them.
func anchors(page string) (list []string) {
	seen := map[string]int{}
	fenced := regexp.MustCompile("(?s)```.*?\n```").ReplaceAllString(page, "")
	for _, match := range heading.FindAllStringSubmatch(fenced, -1) {
		text := link.ReplaceAllString(strings.ReplaceAll(match[1], "[", ""), "")
		anchor := strings.Map(func(r rune) rune {
			switch {
			case r == ' ' || r == '-':
				return '-'
			case unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_':
				return unicode.ToLower(r)
			}
			return -1
		}, strings.TrimSpace(text))
		if list = append(list, anchor); seen[anchor] > 0 {
			list[len(list)-1] += "-" + string(rune('0'+seen[anchor]))
		}
		seen[anchor]++
	}
	return list
}

// broken returns the links of a page that lead to no file of the repository, or to no heading there.
func broken(t *testing.T, page, text string) (list []string) {
	for _, match := range link.FindAllStringSubmatch(code.ReplaceAllString(text, ""), -1) {
		target := match[1]
		if ours, is := strings.CutPrefix(target, tree); is {
			target = filepath.Join(root, ours)
		} else if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
			continue
		} else if !strings.HasPrefix(target, "#") {
			target = filepath.Join(filepath.Dir(page), target)
		} else {
			target = page + target
		}
		file, anchor, hasAnchor := strings.Cut(target, "#")
		if _, err := os.Stat(file); err != nil {
			list = append(list, match[1])
		} else if hasAnchor && !slices.Contains(anchors(read(t, file)), anchor) {
			list = append(list, match[1])
		}
	}
	return list
}

// Every link leads to a file that is there, and to a heading that is there.
func TestLinks(t *testing.T) {
	for _, page := range all(t) {
		if list := broken(t, page, read(t, page)); len(list) > 0 {
			t.Errorf("%s: these lead nowhere: %q", page, list)
		}
	}
	bad := "[a](none.md) [b](reference.md#none) [c](#none) `[d](code.md)` [e](" + tree + "docs/none.md)" +
		" [f](reference.md#errors) [g](https://example.com/x)"
	want := []string{"none.md", "reference.md#none", "#none", tree + "docs/none.md"}
	if list := broken(t, "why.md", bad); !slices.Equal(list, want) {
		t.Errorf("of %s: %q", bad, list)
	}
}

// Every page of the documentation is led to by the README, and says in a few words what it is about.
func TestEveryPageIsFound(t *testing.T) {
	readme := read(t, filepath.Join(root, "README.md"))
	for _, page := range pages(t) {
		name := strings.TrimPrefix(page, root+"/")
		if name == page {
			name = "docs/" + page
		}
		if name != "README.md" && !strings.Contains(readme, "]("+name) {
			t.Errorf("README.md does not lead to %s", name)
		}
		if !strings.HasPrefix(read(t, page), "# ") {
			t.Errorf("%s does not begin with a title", name)
		}
	}
}

// What belongs to an item of a list is indented by four columns, and an item that ends with a paragraph of its own has
// an empty line behind it: the site's Markdown takes it for the text's own below the list otherwise, or the next item
// for a part of that paragraph.
func TestListsAreIndented(t *testing.T) {
	part := regexp.MustCompile(`\n\n {1,3}\S.*|\n {1,3}(?:[-*]|\d+\.|!\[.*\)) .*|` +
		`\n\n    \S.*(?:\n +\S.*)*\n(?:[-*]|\d+\.) .*`)
	for _, page := range all(t) {
		text := regexp.MustCompile("(?s)```.*?\n```").ReplaceAllString(read(t, page), "")
		for _, lines := range part.FindAllString(text, -1) {
			t.Errorf("%s: indent it by four columns, and leave a line empty before what is no part of it: %q", page,
				strings.TrimSpace(lines))
		}
	}
}

// Rows without a heading are no table: a reader sees their bars. A row with fewer cells than its heading lacks one, and
// of one with more the last are not shown.
func TestTablesHaveHeadings(t *testing.T) {
	rule := regexp.MustCompile(`^\|[-| :]+\|$`)
	cells := func(row string) int { return strings.Count(row, "|") - strings.Count(row, `\|`) }
	for _, page := range all(t) {
		text := regexp.MustCompile("(?s)```.*?\n```").ReplaceAllString(read(t, page), "")
		before, lines := "", strings.Split(text, "\n")
		for i, line := range lines {
			if strings.HasPrefix(line, "|") && !strings.HasPrefix(before, "|") &&
				(i+1 == len(lines) || !rule.MatchString(lines[i+1])) {
				t.Errorf("%s: this row is of no table: %s", page, line)
			}
			if strings.HasPrefix(line, "|") && strings.HasPrefix(before, "|") && cells(line) != cells(before) {
				t.Errorf("%s: this row has other cells than the one above it: %s", page, line)
			}
			before = line
		}
	}
}

// The places of pages that programs name are there: docs/PAGE.md, and the heading behind a comma.
func TestNamedPlacesExist(t *testing.T) {
	place, found := regexp.MustCompile(`\bdocs/([a-z0-9-]+\.md)(?:, "?([A-Z0-9][^,;:.()"]*))?`), 0
	for _, text := range texts(t, "agent", "install", "internal", "plugin") {
		for _, match := range place.FindAllStringSubmatch(text, -1) {
			page, err := os.ReadFile(match[1])
			if err != nil {
				t.Errorf("%q: %v", text, err)
				continue
			}
			if match[2] == "" {
				continue
			}
			found++
			if !slices.ContainsFunc(heading.FindAllStringSubmatch(string(page), -1), func(its []string) bool {
				return its[1] == strings.TrimSpace(match[2])
			}) {
				t.Errorf("%q: %s has no heading %q", text, match[1], match[2])
			}
		}
	}
	if found < 10 {
		t.Errorf("%d places", found)
	}
}

// longest is how many lines a page may have that is read from beginning to end. The reference is looked up.
const longest = 250

var longer = map[string]int{"commands.md": 1000, "reference.md": 1000}

func TestPagesAreShort(t *testing.T) {
	for _, page := range all(t) {
		if n := strings.Count(read(t, page), "\n"); n > max(longest, longer[page]) {
			t.Errorf("%s has %d lines: part it", page, n)
		}
	}
}

// widest is how many columns a line of prose may have: editors, reviews and terminals show it whole, or nearly so.
const widest = 230

// Rows of tables and what stands in fences cannot be broken.
func TestProseLines(t *testing.T) {
	for _, page := range all(t) {
		fenced := false
		for n, line := range strings.Split(read(t, page), "\n") {
			row := strings.HasPrefix(strings.TrimSpace(line), "|")
			if strings.HasPrefix(strings.TrimSpace(line), "```") {
				fenced = !fenced
			}
			if wide := columns.Of(line); wide > widest && !fenced && !row {
				t.Errorf("%s:%d: %d columns, at most %d: break the line, or say it in fewer words", page, n+1, wide, widest)
			}
		}
	}
}

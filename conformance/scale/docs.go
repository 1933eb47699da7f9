package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/markers"
)

// table prints the table of the state file. It measures nothing.
func (r run) table() error {
	was, sizes, err := r.state.read()
	if err != nil {
		return err
	}
	if len(sizes) == 0 {
		return fmt.Errorf("%s has no size yet", r.state.path)
	}
	r.settings, r.sizes = was.Options, was.Sizes
	if r.docs {
		if err := r.write(sizes); err != nil {
			return err
		}
	}
	return r.print(sizes)
}

// write puts the table into the page, without the rows that say nothing about 5,000 nodes.
func (r run) write(sizes []size) error {
	path := filepath.Join(build.Root(), "docs", "performance.md")
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text, err := markers.Insert(string(page), "make scale DOCS=1", r.section(sizes))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// section returns the text for the page.
func (r run) section(sizes []size) string {
	var judged []size
	for _, s := range sizes {
		s.Figures = slices.DeleteFunc(slices.Clone(s.Figures), func(f figure) bool { return f.Printed && f.Limit == nil })
		judged = append(judged, s)
	}
	none := nothing(judged)
	for i := range judged {
		judged[i].Figures = slices.DeleteFunc(judged[i].Figures, func(f figure) bool {
			return slices.Contains(none, f.What)
		})
	}
	table, failures := cells(judged)
	var b strings.Builder
	bracketed := false
	fmt.Fprintf(&b, "\n%s:\n\n", r.settings)
	for i, row := range table {
		last := len(row) - 2 // the unit is beside the figure, and the problems are below the table
		if unit := row[last]; unit != "" {
			row[0] += ", " + unit
		}
		bracketed = bracketed || slices.ContainsFunc(row[1:], func(cell string) bool { return strings.HasPrefix(cell, "(") })
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row[:last], " | "))
		if i == 0 {
			fmt.Fprintf(&b, "|---|%s\n", strings.Repeat("--:|", last-1))
		}
	}
	verdict := "Nothing is above its limit, and nothing grows faster than the cluster."
	if len(failures) > 0 {
		verdict = "What fails:\n\n- " + strings.Join(failures, "\n- ")
	}
	if bracketed {
		verdict = brackets + "\n\n" + verdict
	}
	if len(none) > 0 {
		fmt.Fprintf(&b, "\n%s\n", wrapped("0 at every size, and more would fail: "+byStep(none)+"."))
	}
	fmt.Fprintf(&b, "\n%s\n\n", verdict)
	return b.String()
}

// nothing returns the names of the figures that are 0 at every size, and have to be.
func nothing(sizes []size) (names []string) {
	for _, r := range rows(sizes) {
		if r.Limit != nil && *r.Limit == 0 && slices.Max(r.values) == 0 {
			names = append(names, r.What)
		}
	}
	return names
}

// byStep joins names of figures. It names a figure of several steps once, with the steps in brackets.
func byStep(names []string) string {
	var figures []string
	steps := map[string][]string{}
	for _, name := range names {
		step, what, found := strings.Cut(name, ": ")
		if !found {
			step, what = "", name
		}
		if !slices.Contains(figures, what) {
			figures = append(figures, what)
		}
		if found {
			steps[what] = append(steps[what], step)
		}
	}
	for i, what := range figures {
		if len(steps[what]) > 0 {
			figures[i] = fmt.Sprintf("%s (%s)", what, strings.Join(steps[what], ", "))
		}
	}
	return strings.Join(figures, "; ")
}

// columns is how long a line of the page may be.
const columns = 230

// wrapped breaks a text into lines.
func wrapped(text string) string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > columns {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return strings.Join(append(lines, line), "\n")
}

package main

import (
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/await"
)

// fit finds the law of figures that follow one. Figures that do not follow it give a residual.
func TestFit(t *testing.T) {
	nodes := []int{25, 50, 100, 200}
	for name, c := range map[string]struct {
		values             []float64
		exponent, residual float64
		found              bool
	}{
		"constant":  {[]float64{7, 7, 7, 7}, 0, 0, true},
		"linear":    {[]float64{50, 100, 200, 400}, 1, 0, true},
		"quadratic": {[]float64{625, 2500, 10000, 40000}, 2, 0, true},
		"off":       {[]float64{50, 110.5, 181, 400}, 1, 0.1, true},
		"none":      {[]float64{0, 0, 0, 0}, 0, 0, false},
		"once":      {[]float64{0, 0, 0, 3}, 0, 0, false},
	} {
		l, found := fit(nodes, c.values)
		if found != c.found || math.Abs(l.exponent-c.exponent) > 0.05 || math.Abs(l.residual-c.residual) > 0.05 {
			t.Errorf("%s: %+v, %t", name, l, found)
		}
		if name == "quadratic" && math.Abs(l.at(5000)-25e6) > 1 {
			t.Errorf("at 5000 nodes it is %g", l.at(5000))
		}
	}
}

// A figure fails if it is above its limit at any size, or if it is known to grow faster than the cluster.
func TestVerdict(t *testing.T) {
	four, two := []int{25, 50, 100, 200}, []int{25, 50}
	for name, c := range map[string]struct {
		figure
		nodes  []int
		values []float64
		fails  bool
	}{
		"linear":                         {figure{}, four, []float64{1, 2, 4, 8}, false},
		"quadratic":                      {figure{}, four, []float64{1, 4, 16, 64}, true},
		"quadratic at two sizes":         {figure{}, two, []float64{1, 4}, true},
		"noisy at two sizes":             {figure{Noisy: true}, two, []float64{1, 4}, false},
		"noisy and quadratic":            {figure{Noisy: true}, four, []float64{1, 4, 16, 64}, true},
		"quadratic below what matters":   {figure{Floor: 100}, four, []float64{1, 4, 16, 64}, false},
		"nothing at first, then much":    {figure{Noisy: true, Floor: 2}, four, []float64{0, 0, 0, 50}, true},
		"nothing at first, then little":  {figure{Noisy: true, Floor: 2}, four, []float64{0, 0, 0, 1}, false},
		"quadratic, and chance":          {figure{Printed: true}, four, []float64{1, 4, 16, 64}, false},
		"nothing, and nothing may":       {figure{Limit: limit(0)}, two, []float64{0, 0}, false},
		"something, and nothing may":     {figure{Limit: limit(0)}, two, []float64{0, 1}, true},
		"chance, and more than may":      {figure{Printed: true, Limit: limit(1)}, two, []float64{1, 2}, true},
		"of each, the same":              {figure{Each: true}, four, []float64{4, 4.1, 4, 4.2}, false},
		"of each, linear":                {figure{Each: true}, four, []float64{1, 2, 4, 8}, true},
		"of each, linear, and small":     {figure{Each: true, Floor: 10}, four, []float64{1, 2, 4, 8}, false},
		"nobody does it":                 {figure{}, four, []float64{0, 0, 0, 0}, false},
		"the last size ended before it":  {figure{}, four, []float64{1, 2, 4}, false},
		"too much, and the last is away": {figure{Limit: limit(3)}, four, []float64{1, 2, 4}, true},
	} {
		sizes := make([]size, len(c.nodes))
		for i, nodes := range c.nodes {
			sizes[i].Nodes = nodes
		}
		for i, v := range c.values {
			f := c.figure
			f.What, f.Value = "x", v
			sizes[i].Figures = []figure{f}
		}
		if err := report(io.Discard, sizes); (err != nil) != c.fails {
			t.Errorf("%s: %v", name, err)
		}
	}
	little := []size{{10, []figure{{What: "x", Value: 1.00004, Limit: limit(1)}}}}
	const told = "1.00004 with 10 nodes, at most 1 "
	if err := report(io.Discard, little); err == nil || !strings.Contains(err.Error(), told) {
		t.Errorf("a little too much: %v", err)
	}
}

// The estimate of a figure that begins below its floor uses its real growth, not that of the floor. A high exponent
// that fails nothing is in brackets.
func TestEstimate(t *testing.T) {
	nodes := []int{100, 250, 500, 1000}
	for name, c := range map[string]struct {
		figure
		values   []float64
		floors   []float64
		exponent string
		at5000   string
	}{
		"linear, and above its floor at last": {figure{Noisy: true}, []float64{0.25, 0.625, 1.25, 2.5}, []float64{2, 2, 2, 2},
			"1.00", "12.5"},
		"quadratic, and above its floor at last": {figure{}, []float64{0.01, 0.0625, 0.25, 1}, []float64{2, 2, 2, 2},
			"(2.00)", "25"},
		"chance":               {figure{Printed: true}, []float64{1, 6.25, 25, 100}, nil, "(2.00)", "2500"},
		"a fault":              {figure{}, []float64{1, 6.25, 25, 100}, nil, "2.00", "2500"},
		"two small numbers":    {figure{}, []float64{0, 0, 0.03, 0.6}, []float64{1, 2.5, 5, 10}, "-", "-"},
		"of each, and a fault": {figure{Each: true, Limit: limit(9)}, []float64{1, 1.4, 1.8, 2.2}, nil, "0.35", "3.9"},
		"its floor grows with nodes": {figure{}, []float64{1, 6.25, 25, 100}, []float64{200, 500, 1000, 2000},
			"(2.00)", "2500"},
	} {
		var sizes []size
		for i, v := range c.values {
			f := c.figure
			f.What, f.Value = "x", v
			if c.floors != nil {
				f.Floor = c.floors[i]
			}
			sizes = append(sizes, size{nodes[i], []figure{f}})
		}
		table, failures := cells(sizes)
		row := table[1]
		if row[5] != c.exponent || row[8] != c.at5000 || len(failures) > 0 != strings.HasSuffix(name, "a fault") {
			t.Errorf("%s: exponent %s, at 5000 %s, fails %q", name, row[5], row[8], failures)
		}
	}
}

// The page has each judged figure with its unit, its limit and its growth, and the failures below them.
func TestSection(t *testing.T) {
	var sizes []size
	for _, nodes := range []int{10, 100} {
		n := float64(nodes)
		sizes = append(sizes, size{nodes, []figure{
			{What: "watches", Value: n}, {What: "ready", Value: n * n / 100, Unit: "s", Limit: limit(60)},
			{What: "chance", Value: n, Printed: true}, {What: "a start: refused", Limit: limit(0)},
			{What: "a restart: refused", Limit: limit(0)}, {What: "twice", Limit: limit(0)},
		}})
	}
	const want = `
4 pods on a node, 3 of them in the mesh; 2 namespaces for each node; selection: x; agents have no level of their own ` +
		`at the API server:

| nodes | 10 | 100 | exponent | residual | at 1000 | at 5000 | limit |
|---|--:|--:|--:|--:|--:|--:|--:|
| watches | 10 | 100 | 1.00 | 0.00 | 1000 | 5000 | - |
| ready, s | 1 | 100 | 2.00 | 0.00 | 10k | 250k | 60 |

0 at every size, and more would fail: refused (a start, a restart); twice.

What fails:

- ready: 100 with 100 nodes, at most 60 allowed; grows with the power 2.00 of the nodes

`
	r := run{settings: settings{Pods: 4, Mesh: 3, Namespaces: 2, Selection: "x"}}
	if got := r.section(sizes); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	sizes[1].Figures[3].Value = 1
	if got := r.section(sizes); !strings.Contains(got, "| a start: refused | 0 | 1 |") {
		t.Errorf("%s\nwant a row of what was refused once", got)
	}
	for i := range sizes {
		sizes[i].Figures[1].Noisy = true // two sizes are not enough to judge a noisy figure
	}
	if got := r.section(sizes); !strings.Contains(got, "| (2.00) |") || !strings.Contains(got, brackets) {
		t.Errorf("%s\nwant an exponent in brackets, and what that means", got)
	}
}

// Options that cannot be measured are refused, with what is valid.
func TestOptions(t *testing.T) {
	valid := options{perNode: 30, meshed: 25, namespaces: 2, each: 50, churn: 600, rate: 100, idle: time.Second,
		selection: "injected"}
	await.Must(t, valid.check())
	for name, c := range map[string]struct {
		change func(o *options)
		want   string
	}{
		"no pods":           {func(o *options) { o.perNode = 0 }, "--pods: invalid value 0\nValid: 1 or more"},
		"more of the mesh":  {func(o *options) { o.meshed = 31 }, "--mesh: invalid value 31\nValid: 1 to 30"},
		"no namespaces":     {func(o *options) { o.namespaces = 0 }, "--namespaces: invalid value 0"},
		"no agents":         {func(o *options) { o.each = 0 }, "--each: invalid value 0"},
		"nothing replaced":  {func(o *options) { o.churn = -1 }, "--churn: invalid value -1"},
		"no rate":           {func(o *options) { o.rate = 0 }, "--rate: invalid value 0"},
		"no time":           {func(o *options) { o.idle = 0 }, "--idle: invalid value 0s"},
		"another selection": {func(o *options) { o.selection = "x" }, "x"},
	} {
		o := valid
		c.change(&o)
		if err := o.check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// A run continues an unfinished run of the same measurement. After a finished run, or another measurement, it starts
// anew.
func TestState(t *testing.T) {
	s := state{filepath.Join(t.TempDir(), "scale", "state.jsonl")}
	whole := begin{settings{Pods: 30}, []int{25, 50}}
	of := func(now begin) (nodes []int) {
		t.Helper()
		done, err := s.open(now)
		await.Must(t, err)
		for _, one := range done {
			nodes = append(nodes, one.Nodes)
		}
		return nodes
	}
	expect := func(now begin, want ...int) {
		t.Helper()
		if got := of(now); !slices.Equal(got, want) {
			t.Errorf("measured are %v, want %v", got, want)
		}
	}
	expect(whole)
	await.Must(t, s.add(size{25, []figure{{What: "x", Value: 1, Limit: limit(0)}}}))
	expect(whole, 25)
	file, err := os.OpenFile(s.path, os.O_APPEND|os.O_WRONLY, 0)
	await.Must(t, err)
	_, err = file.WriteString(`{"nodes": 50, "fig`)
	await.Must(t, errors.Join(err, file.Close()))
	expect(whole, 25)
	if _, done, err := s.read(); err != nil || *done[0].Figures[0].Limit != 0 {
		t.Errorf("read: %+v, %v", done, err)
	}
	await.Must(t, s.add(size{Nodes: 50}))
	if _, done, err := s.read(); err != nil || len(done) != 2 {
		t.Errorf("after a line that was not whole: %+v, %v", done, err)
	}
	expect(begin{settings{Pods: 29}, []int{25, 50}})
	expect(whole)
}

package main

import (
	"io"
	"math"
	"testing"
)

// A figure that follows a law is found to follow it; one that is off has a residual.
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

// What fails is a limit that is exceeded at any size, and what grows faster than the cluster, where that is known.
func TestVerdict(t *testing.T) {
	four, two := []int{25, 50, 100, 200}, []int{25, 50}
	for name, c := range map[string]struct {
		figure
		nodes  []int
		values []float64
		fails  bool
	}{
		"linear":                     {figure{"x", 0, "", false, unlimited}, four, []float64{1, 2, 4, 8}, false},
		"quadratic":                  {figure{"x", 0, "", false, unlimited}, four, []float64{1, 4, 16, 64}, true},
		"quadratic at two sizes":     {figure{"x", 0, "", false, unlimited}, two, []float64{1, 4}, true},
		"noisy at two sizes":         {figure{"x", 0, "", true, unlimited}, two, []float64{1, 4}, false},
		"noisy and quadratic":        {figure{"x", 0, "", true, unlimited}, four, []float64{1, 4, 16, 64}, true},
		"nothing, and nothing may":   {figure{"x", 0, "", true, 0}, two, []float64{0, 0}, false},
		"something, and nothing may": {figure{"x", 0, "", true, 0}, two, []float64{0, 1}, true},
		"nobody does it":             {figure{"x", 0, "", false, unlimited}, four, []float64{0, 0, 0, 0}, false},
	} {
		var sizes []size
		for i, v := range c.values {
			f := c.figure
			f.value = v
			sizes = append(sizes, size{c.nodes[i], []figure{f}})
		}
		if err := report(io.Discard, sizes); (err != nil) != c.fails {
			t.Errorf("%s: %v", name, err)
		}
	}
}

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// maxExponent is the largest allowed exponent of a figure's growth with the number of nodes. maxEach is that of a
// figure of one pod or one agent, which should not grow.
const (
	maxExponent = 1.1
	maxEach     = 0.2
)

// enough is how many sizes are needed to judge the growth of a noisy figure.
const enough = 4

// figure is one measured number at one size.
type figure struct {
	What    string   `json:"what"`
	Value   float64  `json:"value"`
	Unit    string   `json:"unit,omitempty"`
	Each    bool     `json:"each,omitempty"`    // it is of one pod or one agent
	Noisy   bool     `json:"noisy,omitempty"`   // it depends on the machine, too, not only on the requests
	Printed bool     `json:"printed,omitempty"` // its growth is no failure: it is random, or each pod or agent has a limit
	Limit   *float64 `json:"limit,omitempty"`   // largest allowed value at any size
	Floor   float64  `json:"floor,omitempty"`   // growth below this value does not matter
}

func limit(of float64) *float64 { return &of }

// size has the figures with that many nodes.
type size struct {
	Nodes   int      `json:"nodes"`
	Figures []figure `json:"figures"`
}

// row is one figure at all sizes that have it.
type row struct {
	figure
	nodes  []int
	values []float64
	floors []float64 // the figure's Floor at each size
}

// rows returns the rows in the order of the figures. A size that failed lacks some.
func rows(sizes []size) (all []*row) {
	of := map[string]*row{}
	for _, s := range sizes {
		for _, f := range s.Figures {
			r := of[f.What]
			if r == nil {
				r = &row{figure: f}
				of[f.What], all = r, append(all, r)
			}
			r.nodes, r.values, r.floors = append(r.nodes, s.Nodes), append(r.values, f.Value), append(r.floors, f.Floor)
		}
	}
	return slices.DeleteFunc(all, func(r *row) bool { // rows of requests that nobody sent
		return r.Limit == nil && slices.Max(r.values) == 0
	})
}

// at returns the value at a size as text, if it was measured.
func (r row) at(nodes int) string {
	if i := slices.Index(r.nodes, nodes); i >= 0 {
		return short(r.values[i])
	}
	return "-"
}

// law returns how the row grows. If half of the values or more are 0, it finds none: the others would give a random
// one.
func (r row) law() (l law, found bool) {
	zeros := 0
	for _, v := range r.values {
		if v == 0 {
			zeros++
		}
	}
	if 2*zeros >= len(r.values) {
		return l, false
	}
	return fit(r.nodes, r.values)
}

// judged returns how the row grows if values below the floor count as the floor, also a 0: otherwise a figure that only
// the largest size has would never fail. This is no estimate for other sizes: a row that begins below the floor would
// seem to grow slowly.
func (r row) judged() (l law, found bool) {
	values := make([]float64, len(r.values))
	for i, v := range r.values {
		values[i] = max(v, r.floors[i])
	}
	return fit(r.nodes, values)
}

// brackets is the text beside a table with an exponent in brackets.
const brackets = "An exponent in brackets is above 1.1, or above 0.2 for a figure of each pod or agent, and no " +
	"fault: chance decides the figures, or all are too small to matter, or too few sizes were measured."

// cells returns a row for each figure: its values, its growth, the estimates for 1,000 and 5,000 nodes, its limit, its
// unit, and its problems. The first row has the headings. failures are all problems.
func cells(sizes []size) (table [][]string, failures []string) {
	head := []string{"nodes"}
	for _, s := range sizes {
		head = append(head, fmt.Sprint(s.Nodes))
	}
	table = append(table, append(head, "exponent", "residual", "at 1000", "at 5000", "limit", "", ""))
	for _, r := range rows(sizes) {
		row := []string{r.What}
		for _, s := range sizes {
			row = append(row, r.at(s.Nodes))
		}
		if l, found := r.law(); found {
			exponent := fmt.Sprintf("%.2f", l.exponent)
			if l.exponent > r.maxExponent() && !r.grows() {
				exponent = "(" + exponent + ")"
			}
			row = append(row, exponent, fmt.Sprintf("%.2f", l.residual), short(l.at(1000)), short(l.at(5000)))
		} else {
			row = append(row, "-", "-", "-", "-")
		}
		highest := "-"
		if r.Limit != nil {
			highest = short(*r.Limit)
		}
		problem := r.problem()
		table = append(table, append(row, highest, r.Unit, problem))
		if problem != "" {
			failures = append(failures, r.What+": "+problem)
		}
	}
	return table, failures
}

// report prints the table. It returns an error if a figure is above its limit or grows faster than the cluster.
func report(out io.Writer, sizes []size) error {
	table, failures := cells(sizes)
	text := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, row := range table {
		fmt.Fprintln(text, strings.Join(row[:len(row)-1], "\t")+"\t"+row[len(row)-1])
	}
	if err := text.Flush(); err != nil {
		return err
	}
	if len(failures) > 0 {
		return errors.New(strings.Join(failures, "; "))
	}
	return nil
}

// problem returns what is wrong with a figure, "" if nothing is.
func (r row) problem() string {
	var problems []string
	for i, v := range r.values {
		if r.Limit != nil && v > *r.Limit {
			value := short(v)
			if value == short(*r.Limit) {
				value = fmt.Sprint(v)
			}
			problems = append(problems, fmt.Sprintf("%s with %d nodes, at most %s allowed", value, r.nodes[i], short(*r.Limit)))
			break
		}
	}
	if r.grows() {
		l, _ := r.judged()
		problems = append(problems, fmt.Sprintf("grows with the power %.2f of the nodes", l.exponent))
	}
	return strings.Join(problems, "; ")
}

// grows reports whether the figure grows faster than the cluster and that is a failure.
func (r row) grows() bool {
	l, found := r.judged()
	return found && !r.Printed && l.exponent > r.maxExponent() && (!r.Noisy || len(r.nodes) >= enough)
}

// maxExponent returns the largest allowed exponent of the row's growth.
func (r row) maxExponent() float64 {
	if r.Each {
		return maxEach
	}
	return maxExponent
}

// short returns a number with three digits.
func short(v float64) string {
	for _, unit := range []struct {
		of   float64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {9999.5, "k"}} {
		if v >= unit.of {
			scale := cmp.Or(map[string]float64{"k": 1e3}[unit.name], unit.of)
			return fmt.Sprintf("%.3g%s", v/scale, unit.name)
		}
	}
	if v == float64(int(v)) {
		return fmt.Sprint(int(v))
	}
	if v >= 1000 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

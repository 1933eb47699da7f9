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

// maxExponent is the growth with the number of nodes, each with its pods, from which on a figure is a fault.
const maxExponent = 1.1

// enough is how many sizes say how a figure grows that this machine's other work changes too.
const enough = 4

// figure is one number that was found at one size.
type figure struct {
	What    string   `json:"what"`
	Value   float64  `json:"value"`
	Unit    string   `json:"unit,omitempty"`
	Noisy   bool     `json:"noisy,omitempty"`   // the machine decides it, too, and not only what the API server was asked
	Printed bool     `json:"printed,omitempty"` // its growth is no fault: chance decides it, or a limit per pod or agent
	Limit   *float64 `json:"limit,omitempty"`   // the highest value that is allowed at any size
	Floor   float64  `json:"floor,omitempty"`   // how it grows below this is of no interest
}

func limit(of float64) *float64 { return &of }

// size is what was found with so many nodes.
type size struct {
	Nodes   int      `json:"nodes"`
	Figures []figure `json:"figures"`
}

// row is one figure at all sizes that have it.
type row struct {
	figure
	nodes  []int
	values []float64
	floors []float64 // what the figure's is at each size
}

// rows are in the order in which the figures were found. A size that failed lacks some.
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
	return slices.DeleteFunc(all, func(r *row) bool { // a request that nobody made
		return r.Limit == nil && slices.Max(r.values) == 0
	})
}

// at is the value at a size, if it was found.
func (r row) at(nodes int) string {
	if i := slices.Index(r.nodes, nodes); i >= 0 {
		return short(r.values[i])
	}
	return "-"
}

// law is how the row grows. Where it is 0 at half of the sizes or more, two small numbers would make a law of chance:
// that of the judgement stands there.
func (r row) law() (l law, found bool) {
	zeros := 0
	for _, v := range r.values {
		if v == 0 {
			zeros++
		}
	}
	if 2*zeros >= len(r.values) {
		return r.judged()
	}
	return fit(r.nodes, r.values)
}

// judged is how the row grows if all below its floor counts as the floor. It says nothing about what is to be expected:
// what begins below the floor would seem to grow slowly.
func (r row) judged() (l law, found bool) {
	var nodes []int
	var values []float64
	for i, v := range r.values {
		if v > 0 {
			nodes, values = append(nodes, r.nodes[i]), append(values, max(v, r.floors[i]))
		}
	}
	return fit(nodes, values)
}

// brackets is what stands beside a table in which an exponent is in brackets.
const brackets = "An exponent in brackets is above 1.1 and no fault: chance decides the figures, or all are too " +
	"small to matter, or too few sizes were measured."

// cells are a row for each figure: its values, how it grows, what that makes of 1,000 and 5,000 nodes, its limit, its
// unit, and what is wrong with it. The first row names the columns. failures are what is wrong with all.
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
			if l.exponent > maxExponent && !r.grows() {
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

// report prints the table. It fails when a figure is above its limit or grows faster than the cluster.
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

// problem is what is wrong with a figure, "" if nothing is.
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
		l, _ := r.law()
		problems = append(problems, fmt.Sprintf("grows with the power %.2f of the nodes", l.exponent))
	}
	return strings.Join(problems, "; ")
}

// grows reports whether the figure grows faster than the cluster, and that is a fault.
func (r row) grows() bool {
	l, found := r.judged()
	return found && !r.Printed && l.exponent > maxExponent && (!r.Noisy || len(r.nodes) >= enough)
}

// short renders a number with three digits.
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

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
	what  string
	value float64
	unit  string
	noisy bool    // also the machine decides it, and not only what was asked of the API server
	limit float64 // the highest value that is allowed at any size, unless it is negative
}

// unlimited is the limit of a figure whose growth alone matters.
const unlimited = -1

// size is what was found with so many nodes.
type size struct {
	nodes   int
	figures []figure
}

// report prints a row for each figure: its values, how it grows, and what that makes of 1,000 and 5,000 nodes. It
// fails when one is above its limit or grows faster than the cluster.
func report(out io.Writer, sizes []size) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(table, "nodes\t")
	var nodes []int
	for _, s := range sizes {
		fmt.Fprintf(table, "%d\t", s.nodes)
		nodes = append(nodes, s.nodes)
	}
	fmt.Fprint(table, "exponent\tresidual\tat 1000\tat 5000\t\t\n")
	var failures []string
	for i, f := range sizes[0].figures {
		var values []float64
		for _, s := range sizes {
			values = append(values, s.figures[i].value)
		}
		if f.limit < 0 && slices.Max(values) == 0 { // a request that nobody made
			continue
		}
		fmt.Fprintf(table, "%s\t", f.what)
		for _, v := range values {
			fmt.Fprintf(table, "%s\t", short(v))
		}
		l, found := fit(nodes, values)
		if found {
			fmt.Fprintf(table, "%.2f\t%.2f\t%s\t%s\t", l.exponent, l.residual, short(l.at(1000)), short(l.at(5000)))
		} else {
			fmt.Fprint(table, "-\t-\t-\t-\t")
		}
		problem := f.problem(nodes, values, l, found)
		fmt.Fprintf(table, "%s\t%s\n", f.unit, problem)
		if problem != "" {
			failures = append(failures, f.what+": "+problem)
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if len(failures) > 0 {
		return errors.New(strings.Join(failures, "; "))
	}
	return nil
}

// problem is what is wrong with a figure, "" if nothing is.
func (f figure) problem(nodes []int, values []float64, l law, found bool) string {
	for i, v := range values {
		if f.limit >= 0 && v > f.limit {
			return fmt.Sprintf("%s with %d nodes, at most %s are allowed", short(v), nodes[i], short(f.limit))
		}
	}
	if found && l.exponent > maxExponent && (!f.noisy || len(nodes) >= enough) {
		return fmt.Sprintf("grows with the power %.2f of the nodes", l.exponent)
	}
	return ""
}

// short renders a number with three digits.
func short(v float64) string {
	for _, unit := range []struct {
		of   float64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e4, "k"}} {
		if v >= unit.of {
			scale := cmp.Or(map[string]float64{"k": 1e3}[unit.name], unit.of)
			return fmt.Sprintf("%.3g%s", v/scale, unit.name)
		}
	}
	if v == float64(int(v)) {
		return fmt.Sprint(int(v))
	}
	return fmt.Sprintf("%.3g", v)
}

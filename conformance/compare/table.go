package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// unknown is the cell of what was not measured. never is that of what cannot happen.
const (
	unknown = "–"
	never   = "cannot happen"
)

// grid is a table with one way in each row.
type grid struct {
	title string
	head  []string
	rows  [][]string
}

// column is a column of a grid.
type column struct {
	head string
	cell func(results) string
}

// results has the measurements of a way, and those of the way without redirection.
type results struct {
	way
	own, base []measurement
}

var grids = []struct {
	title   string
	columns []column
}{
	{"What it takes (median / worst)", []column{
		{"one pod: ready, s", func(r results) string {
			return r.spread(partSingle, func(m measurement) float64 { return m.Ready })
		}},
		{"one pod: first request, s", func(r results) string {
			return r.spread(partSingle, func(m measurement) float64 { return m.Request })
		}},
		{"110 at once: all ready, s", func(r results) string {
			return r.spread(partFill, func(m measurement) float64 { return m.Ready })
		}},
		{"110 at once: last first request, s", func(r results) string {
			return r.spread(partFill, func(m measurement) float64 { return m.Request })
		}},
		{"processor time per pod of CNI plugins and runc, beyond the first row, ms", results.beyond},
		{"of the pod's containers until ready, ms", func(r results) string {
			return r.perPod(func(u measurement) float64 { return 1000 * (u.Pods - u.Agent) }, "")
		}},
		{"of the agent per pod, ms", func(r results) string {
			return r.perPod(func(u measurement) float64 { return 1000 * u.Agent }, "no agent")
		}},
		{"agent's memory, MiB", results.memory},
		{"API requests per pod", func(r results) string {
			return r.perPod(func(u measurement) float64 { return float64(u.Requests) }, "none")
		}},
	}},
	{"What it needs", []column{
		{"Pod Security of mesh pods", func(r results) string { return "`" + r.table.admits + "`" }},
		{"SCC (read)", func(r results) string { return r.table.scc }},
		{"init containers", func(r results) string {
			var names []string
			for _, c := range r.inits {
				name, _, _ := strings.Cut(c, "=")
				names = append(names, "`"+name+"`")
			}
			return cmp.Or(strings.Join(names, ", "), "none")
		}},
		{"credential on the node's disk", func(r results) string {
			if r.table.token == "" {
				return "none"
			}
			return "`" + r.table.token + "`"
		}},
		{"programs of the host (read)", func(r results) string { return r.table.programs }},
	}},
	{"What it does when something is wrong (pods: past the sidecar / not ready in the end / seconds until all were)",
		wrong()},
}

// wrong returns the columns of faults.
func wrong() []column {
	var columns []column
	for _, f := range faults {
		columns = append(columns, column{f.title, func(r results) string { return r.fault(f) }})
	}
	return columns
}

// of returns the measurements of a part.
func of(all []measurement, part string) []measurement {
	return slices.DeleteFunc(slices.Clone(all), func(m measurement) bool { return m.Part != part })
}

// spread returns the median and the maximum of a part's measurements. Pods that never became ready have no time: their
// number is added.
func (r results) spread(part string, value func(measurement) float64) string {
	var values []float64
	stuck := 0
	for _, m := range of(r.own, part) {
		values = append(values, value(m))
		stuck += m.Stuck
	}
	if len(values) == 0 {
		return unknown
	}
	slices.Sort(values)
	text := fmt.Sprintf("%.2f / %.2f", median(values), values[len(values)-1])
	if stuck > 0 {
		text += fmt.Sprintf(", %d pods not ready", stuck)
	}
	return text
}

// median returns the median of sorted values.
func median(sorted []float64) float64 {
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}

// mean returns a value for each pod, over single pods and fills.
func mean(all []measurement, value func(measurement) float64) (perPod float64, known bool) {
	sum, pods := 0.0, 0
	for _, m := range append(of(all, partSingle), of(all, partFill)...) {
		sum += value(m)
		pods += m.Count
	}
	return sum / float64(max(pods, 1)), pods > 0
}

// perPod returns a value for each pod, or without if the way has no agent.
func (r results) perPod(value func(measurement) float64, without string) string {
	if r.agent == nil && without != "" {
		return without
	}
	perPod, known := mean(r.own, value)
	if !known {
		return unknown
	}
	return fmt.Sprintf("%.1f", perPod)
}

// beyond returns the processor time of CNI plugins and runc for each pod, minus that of a pod without redirection. If
// there is no init container, all of it is the plugin's.
func (r results) beyond() string {
	value := func(m measurement) float64 { return 1000 * m.Runtime }
	own, known := mean(r.own, value)
	base, knownToo := mean(r.base, value)
	if !known || !knownToo {
		return unknown
	}
	return fmt.Sprintf("%.1f", own-base)
}

// memory returns the agent's largest memory.
func (r results) memory() string {
	if r.agent == nil {
		return "no agent"
	}
	largest := 0.0
	for _, m := range r.own {
		largest = max(largest, m.Memory)
	}
	if largest == 0 {
		return unknown
	}
	return fmt.Sprintf("%.0f", largest)
}

// fault returns what became of the pods in a fault.
func (r results) fault(f fault) string {
	if r.direct {
		return "nothing to lose"
	}
	if f.agent && r.agent == nil {
		return never
	}
	var o outcome
	pods := 0
	for _, m := range of(r.own, f.name) {
		pods += m.Count
		o.Leaked, o.Stuck, o.Ready = o.Leaked+m.Leaked, o.Stuck+m.Stuck, max(o.Ready, m.Ready)
	}
	if pods == 0 {
		return unknown
	}
	return fmt.Sprintf("%d: %d / %d / %.0f", pods, o.Leaked, o.Stuck, o.Ready)
}

// tables returns the grids with the measurements.
func tables(all []measurement) (filled []grid) {
	for _, g := range grids {
		out := grid{title: g.title, head: []string{""}}
		for _, c := range g.columns {
			out.head = append(out.head, c.head)
		}
		for _, w := range ways {
			row := []string{w.title}
			for _, c := range g.columns {
				row = append(row, c.cell(results{w, ofWay(all, w.key), ofWay(all, ways[0].key)}))
			}
			out.rows = append(out.rows, row)
		}
		filled = append(filled, out)
	}
	return filled
}

func ofWay(all []measurement, key string) []measurement {
	return slices.DeleteFunc(slices.Clone(all), func(m measurement) bool { return m.Way != key })
}

// text returns everything for a terminal: a block for each way, because the grids are wider than its lines.
func text(all []measurement) string {
	var b strings.Builder
	for _, g := range tables(all) {
		fmt.Fprintf(&b, "\n%s\n", g.title)
		for _, row := range g.rows {
			fmt.Fprintf(&b, "  %s\n", strings.ReplaceAll(row[0], "`", ""))
			for i, cell := range row[1:] {
				fmt.Fprintf(&b, "    %-52s %s\n", g.head[i+1], strings.ReplaceAll(cell, "`", ""))
			}
		}
	}
	return b.String()
}

// markdown returns everything for a page.
func markdown(all []measurement) string {
	var b strings.Builder
	for _, g := range tables(all) {
		fmt.Fprintf(&b, "\n**%s**\n\n", g.title)
		line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
		line(g.head)
		line(slices.Repeat([]string{"---"}, len(g.head)))
		for _, row := range g.rows {
			line(row)
		}
	}
	singles, fills := 0, 0
	for _, m := range all {
		if m.Way == ways[0].key {
			singles += len(of([]measurement{m}, partSingle))
			fills += len(of([]measurement{m}, partFill))
		}
	}
	fmt.Fprintf(&b, "\nMeasured of each: %d single pods, %d fills. %s: not measured yet.\n\n", singles, fills, unknown)
	return b.String()
}

package verify

import (
	"fmt"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/plugin/flows/report"
)

// write writes the results as text.
func (v Verification) write(t *output.Text) {
	sum := v.Summary
	t.Line(v.verdict().Colour(), "%d nodes: %d well, %d not well, %d not proven", len(v.Items), sum.Well, sum.NotWell,
		sum.NotProven)
	t.Line(output.Plain, "Image: %s", v.Image)
	if v.Istio != nil {
		t.Line(output.Plain, "Injected by: %s, which the label %s selects", v.Istio.Webhook, v.Istio.Label)
	}
	t.WriteByte('\n')
	rows := [][]string{{"", "NODE", "FLOWS", "ATTEMPTS", "CONTROL"}}
	for _, n := range v.Items {
		flows, attempts := tally{}, tally{}
		for _, f := range n.Flows {
			if f.isEscape() {
				attempts.count(f)
			} else {
				flows.count(f)
			}
		}
		rows = append(rows, []string{n.Verdict.Sign(), n.Name, flows.String(), attempts.String(),
			map[bool]string{true: "seen", false: "not seen"}[n.Control]})
	}
	t.Columns(rows)
	v.writeFlows(t)
	for _, n := range v.Items {
		if t.Wide && len(n.Flows) > 0 {
			n.writeFlows(t)
		}
		for _, f := range n.Findings {
			t.WriteByte('\n')
			t.Finding(n.Verdict, n.Name, f)
		}
	}
	t.NotLookedAt(v.notes())
}

// tally counts flows.
type tally struct{ well, ill, all int }

func (c *tally) count(f Flow) {
	if f.unmade {
		return
	}
	c.all++
	switch f.Verdict {
	case Well:
		c.well++
	case NotWell:
		c.ill++
	}
}

func (c tally) String() string {
	if c.all == 0 {
		return "-"
	}
	return fmt.Sprintf("%d/%d", c.well, c.all)
}

func (c tally) sign() string {
	switch {
	case c.ill > 0:
		return NotWell.Sign()
	case c.well < c.all:
		return NotProven.Sign()
	}
	return Well.Sign()
}

// writeFlows writes what was proven, and what it means.
func (v Verification) writeFlows(t *output.Text) {
	counts := make([]tally, len(kinds)+1)
	for _, n := range v.Items {
		for _, f := range n.Flows {
			counts[rank(f.Flow)].count(f)
		}
	}
	rows := [][]string{{"", "FLOW", "WELL", "WHAT IT SHOWS"}}
	for i, k := range kinds {
		if counts[i].all > 0 {
			rows = append(rows, []string{counts[i].sign(), strings.TrimSuffix(k.flow, "/"), counts[i].String(), k.means})
		}
	}
	if len(rows) > 1 {
		t.WriteByte('\n')
		t.Columns(rows)
	}
}

// writeFlows writes each flow of a node.
func (n Node) writeFlows(t *output.Text) {
	t.WriteByte('\n')
	t.Line(output.Bold, "%s", n.Name)
	rows := [][]string{{"", "FLOW", "FAMILY", "TO", "ANSWERED BY", "WHY"}}
	for _, f := range n.Flows {
		got, _, _ := strings.Cut(f.Got, " ") // the rest is where it was sent
		rows = append(rows, []string{f.Verdict.Sign(), f.Flow, f.Family, f.To, got, f.Why})
	}
	t.Columns(rows)
}

// notes returns what was not looked at, attempts that prove nothing, and what could not be made, each with its nodes.
func (v Verification) notes() []string {
	where := map[string][]string{}
	var attempts []string
	for _, n := range v.Items {
		for _, f := range n.Flows {
			if (f.isEscape() || f.unmade) && f.Verdict == NotProven {
				what := fmt.Sprintf("%s, %s (%s)", f.Flow, f.Family, f.Why)
				if f.isEscape() {
					what = "the attempt " + strings.TrimPrefix(what, report.Escape)
				}
				if where[what] == nil {
					attempts = append(attempts, what)
				}
				where[what] = append(where[what], n.Name)
			}
		}
	}
	all := slices.Clone(v.NotLookedAt)
	for _, what := range attempts {
		nodes := where[what]
		on := nodes[0]
		if more := len(nodes) - 1; more > 0 {
			on += fmt.Sprintf(" and %d more", more)
		}
		all = append(all, what+", on "+on)
	}
	return all
}

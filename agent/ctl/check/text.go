package check

import "github.com/istio-pod-network/controller/agent/ctl/output"

// write writes the results as text.
func (c Check) write(t *output.Text) {
	group := ""
	for _, item := range c.Items {
		if item.Group != group {
			if group != "" {
				t.WriteByte('\n')
			}
			group = item.Group
			t.Line(output.Bold, "%s", group)
		}
		what := item.What
		if item.Node != "" {
			what = item.Node + ": " + what
		}
		if len(item.Nodes) > 0 {
			what = some(item.Nodes) + ": " + what
		}
		if item.Verdict == NotLookedAt {
			what = "not looked at: " + what
		}
		t.Verdict(item.Verdict, "%s", what)
		if item.Next != "" {
			t.Item("  ->", "%s", item.Next)
		}
	}
	sum := c.Summary
	colour := output.Green
	switch {
	case sum.NotWell > 0:
		colour = output.Red
	case sum.Warnings > 0:
		colour = output.Yellow
	}
	t.WriteByte('\n')
	t.Line(colour, "%d well, %d to know, %d not well, %d not looked at", sum.Well, sum.Warnings, sum.NotWell,
		sum.NotLookedAt)
}

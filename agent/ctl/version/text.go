package version

import (
	"cmp"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/agent/ctl/status"
)

// write writes the versions as text.
func (v Version) write(t *output.Text) {
	t.Line(output.Plain, "This tool is of %s.", v.Tool)
	if v.Summary == nil {
		return
	}
	sum := v.Summary
	colour := output.Green
	switch {
	case sum.DoNot > 0:
		colour = output.Red
	case sum.NotAsked > 0:
		colour = output.Yellow
	}
	t.Line(colour, "%d nodes: %d fit, %d do not fit, %d not asked", len(v.Items), sum.Fit, sum.DoNot, sum.NotAsked)
	t.WriteByte('\n')
	rows := [][]string{{"", "NODE", "AGENT", "PLUGIN"}}
	if t.Wide {
		rows[0] = append(rows[0], "POD", "SHA-256")
	}
	for _, n := range v.Items {
		rows = append(rows, n.row(t.Wide))
	}
	t.Columns(rows)
	for _, n := range v.Items {
		for _, f := range n.Findings {
			t.WriteByte('\n')
			t.Finding(n.Verdict, n.Name, f)
		}
		if len(n.CannotAnswer) > 0 {
			t.WriteByte('\n')
			t.Line(output.Yellow, "! %s: its agent cannot answer %s", n.Name, strings.Join(n.CannotAnswer, ", "))
			t.Item("->", status.Upgrade)
		}
	}
	t.NotLookedAt(v.NotLookedAt)
}

// row returns the node's row in the table.
func (n Node) row(wide bool) []string {
	row := []string{n.Verdict.Sign(), n.Name, cmp.Or(n.Agent, n.Release), ""}
	hash := ""
	if n.Plugin != nil {
		hash = n.Plugin.SHA256
		row[3] = n.Plugin.Name()
	}
	if wide {
		row = append(row, n.Pod, hash)
	}
	return row
}

package status

import (
	"fmt"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/output"
)

// verdict returns the verdict about the cluster.
func (s Status) verdict() Verdict {
	switch {
	case s.Summary.NotWell > 0:
		return NotWell
	case s.Summary.NotAsked > 0 || len(s.Items) == 0 || len(s.Unlisted) > 0:
		return NotAsked
	}
	return Well
}

// write writes the status as text.
func (s Status) write(t *output.Text) {
	sum := s.Summary
	t.Line(s.verdict().Colour(), "%d nodes: %d well, %d not well, %d not asked", len(s.Items), sum.Well, sum.NotWell,
		sum.NotAsked)
	t.Line(output.Plain, "Pods: %d redirected, %d left, %d waiting, %d bypassed", sum.Redirected, sum.Left, sum.Waiting,
		sum.Bypassed)
	t.WriteByte('\n')
	rows := [][]string{{"", "NODE", "VERSION", "CHAINED", "BACKEND", "KERNEL", "RUNTIME", "R/L/W/B"}}
	for _, n := range s.Items {
		rows = append(rows, n.row(t.Wide))
	}
	t.Columns(rows)
	if t.Wide {
		t.WriteByte('\n')
		rows = [][]string{{"NODE", "CHAINED INTO", "PLUGIN", "LAST REPAIR"}}
		for _, n := range s.Items {
			rows = append(rows, n.details())
		}
		t.Columns(rows)
	}
	for _, n := range s.Items {
		for _, f := range n.Findings {
			t.WriteByte('\n')
			t.Finding(n.Verdict, n.Name, f)
		}
		for _, f := range n.Warnings {
			t.WriteByte('\n')
			t.Finding(output.Warning, n.Name, f)
		}
	}
	for _, r := range s.Rollouts {
		t.WriteByte('\n')
		t.Finding(output.Warning, "DaemonSet "+r.DaemonSet, r.Finding())
	}
	t.NotLookedAt(s.NotLookedAt)
}

// row returns the node's row in the table. Unless wide, it shortens the kernel's version to its release, without the
// distribution's suffix.
func (n Node) row(wide bool) []string {
	kernel := n.Kernel
	if !wide {
		kernel, _, _ = strings.Cut(kernel, "-")
	}
	row := []string{n.Verdict.Sign(), n.Name, "", "", "", kernel, n.Runtime, ""}
	if n.Agent == nil {
		return row
	}
	pods := n.Agent.Pods
	row[2], row[3], row[4] = n.version(), n.chained(), strings.Join(pods.Backends, ", ")
	row[7] = fmt.Sprintf("%d/%d/%d/%d", pods.Redirected, pods.Left, len(pods.Waiting), len(pods.Bypassed))
	return row
}

// version returns the agent's version, and the plugin's if it differs.
func (n Node) version() string {
	plugin := n.Agent.Plugin
	switch {
	case !n.Agent.Installation.Managed || plugin.Version == n.Agent.Agent:
		return n.Agent.Agent
	case plugin.SHA256 == "":
		return n.Agent.Agent + ", no plugin"
	}
	return n.Agent.Agent + ", plugin " + plugin.Name()
}

// chained returns how the plugin is chained, or that it was not looked at.
func (n Node) chained() string {
	if !n.Agent.Installation.Managed {
		return "not looked at"
	}
	return n.Agent.Installation.Chained
}

// details returns what the table leaves out.
func (n Node) details() []string {
	row := []string{n.Name, "", "", ""}
	if n.Agent == nil {
		return row
	}
	i := n.Agent.Installation
	row[1], row[2] = i.Into, n.Agent.Plugin.SHA256
	if i.LastRepair != nil {
		row[3] = i.LastRepair.Time.UTC().Format(time.RFC3339) + " " + strings.Join(i.LastRepair.Causes, ", ")
	}
	return row
}

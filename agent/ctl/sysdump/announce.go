package sysdump

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/output"
)

// planned is a file that an archive may have, and its content.
type planned struct{ path, what string }

// plan returns what an archive will have, as far as that is known before anything is read.
func (o options) plan() (all []planned) {
	names := []string{ofNodes.name, ofNamespaces.name, "agents", ofEvents.name}
	for _, k := range kinds {
		names = append(names, k.name)
	}
	slices.Sort(names)
	all = []planned{
		{indexFile, "all files, and what could not be read"},
		{"versions.json", "of tool, API server, agents, plugins and nodes"},
		{"objects/KIND.yaml", strings.Join(names, ", ")},
		{"pods/NAMESPACE/pods.yaml", "pods of the mesh, without environments, images and arguments"},
	}
	of := "agents/NODE/POD/"
	for _, f := range []planned{
		{"node.json", "what the agent says of its node"},
		{"files.json", "CNI directories, with configurations and records"},
		{"agent.log", fmt.Sprintf("its last %d lines", o.logLines)},
		{"agent-previous.log", "the same of the container before"},
		{"metrics.txt", "what Prometheus reads"},
	} {
		all = append(all, planned{of + f.path, f.what})
	}
	for _, pod := range o.chosen {
		all = append(all, planned{path.Join("pods", pod, "record.json"), "what the agent says of the pod"},
			planned{path.Join("pods", pod, "rules.json"), "packet rules in its network, without values"})
	}
	return all
}

// announce prints what the archive will have.
func (o options) announce() {
	if o.first == nil {
		return
	}
	writer := output.Writer{Out: o.first, Format: output.Table}
	_ = writer.Object(nil, func(t *output.Text) { // a failed write must not prevent the archive
		if o.list {
			t.Line(output.Plain, "Reads, and writes nothing (--list):")
		} else {
			t.Line(output.Plain, "Reads, and writes to %s:", o.file)
		}
		rows := [][]string{{"FILE", "WHAT"}}
		for _, p := range o.plan() {
			rows = append(rows, []string{p.path, p.what})
		}
		t.Columns(rows)
		of := "all nodes that have an agent"
		if len(o.nodes) > 0 {
			of = strings.Join(o.nodes, ", ")
		}
		hides := "names and addresses of your cluster stay (--redact)"
		if o.redact {
			hides = "with pseudonyms for names and addresses"
		}
		t.Line(output.Plain, "Of %s; no Secret, no value of an environment; %s.", of, hides)
		t.WriteByte('\n')
	})
}

package faulttable

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Found is a finding of a command. About is the node or the pod, or "" for the cluster.
type Found struct{ About, What, Next string }

// Said is what a command has printed: findings, warnings, and findings about pods that it could not check.
type Said struct{ Wrong, Warnings, Unasked []Found }

// Verify is the command that creates its own pods, and checks nodes.
const Verify = "verify"

// Commands whose arguments differ from their name.
const (
	live    = "trace --live"
	sysdump = "sysdump"
)

// Args returns the arguments with which a command checks pods, NAMESPACE/NAME. Its output is for Read.
func Args(command string, pods ...string) []string {
	args := append(strings.Fields(command), "-o", "json")
	switch command {
	case "explain":
		args = append(args, pods...)
	case "trace", live:
		args = append(append(args, pods...), "--to", "192.0.2.1:80")
	case sysdump:
		args = []string{sysdump, "--list", "--format", "json"}
		for _, pod := range pods {
			args = append(args, "--pod", pod)
		}
	}
	return args
}

// finding is a finding in the output of several commands.
type finding struct{ What, Next string }

// Read parses the output of a command.
func Read(command string, out []byte) (said Said, err error) {
	var t struct {
		Unread []struct{ What, Reason, Next string }
		Items  []struct {
			Name, Node, Verdict, What, Next, Error string

			Findings []finding
			Warnings json.RawMessage
			Cluster  struct {
				State    string
				Findings []finding
			}
			Kernel json.RawMessage
		}
	}
	if err := json.Unmarshal(out, &t); err != nil {
		return said, fmt.Errorf("%s printed %q: %w", command, out, err)
	}
	add := func(to *[]Found, about string, all ...finding) {
		for _, f := range all {
			*to = append(*to, Found{about, f.What, f.Next})
		}
	}
	for _, u := range t.Unread {
		add(&said.Wrong, aboutOf(u.What), finding{u.What + ": " + u.Reason, u.Next})
	}
	for _, i := range t.Items {
		switch {
		case command != "check":
			add(&said.Wrong, i.Name, i.Findings...)
			of := &said.Wrong
			if i.Cluster.State == "not asked" {
				of = &said.Unasked
			}
			add(of, i.Name, i.Cluster.Findings...)
			var warnings []finding
			if err := json.Unmarshal(i.Warnings, &warnings); err == nil { // the warnings of explain are about the pod's manifest
				add(&said.Warnings, i.Name, warnings...)
			}
			if i.Error != "" && strings.HasPrefix(command, "trace") {
				add(&said.Wrong, i.Name, finding{i.Error, i.Next})
			}
			var kernel struct {
				Looked, Agrees bool
				Detail, Next   string
			}
			err := json.Unmarshal(i.Kernel, &kernel) // kernel in the output of status is a version
			switch detail := (finding{kernel.Detail, kernel.Next}); {
			case err == nil && !kernel.Looked:
				add(&said.Warnings, i.Name, detail)
			case err == nil && !kernel.Agrees:
				add(&said.Wrong, i.Name, detail)
			}
		case i.Verdict == "not well":
			add(&said.Wrong, i.Node, finding{i.What, i.Next})
		case i.Verdict == "warning":
			add(&said.Warnings, i.Node, finding{i.What, i.Next})
		}
	}
	return said, nil
}

// aboutOf returns the node or pod at the end of what sysdump could not read, or "" for the cluster.
func aboutOf(what string) string {
	if i := strings.LastIndexAny(what, "/ "); i >= 0 {
		return what[i+1:]
	}
	return ""
}

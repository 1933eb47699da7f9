package faulttable

import (
	"encoding/json"
	"fmt"
)

// Found is something that a command says, and of which node or pod; "" for the cluster.
type Found struct{ About, What, Next string }

// Said is what a command says is not well, and of what it warns.
type Said struct{ Wrong, Warnings []Found }

// Args are those by which a command is asked about pods, NAMESPACE/NAME, for Read.
func Args(command string, pods ...string) []string {
	args := []string{command, "-o", "json"}
	switch command {
	case "explain":
		args = append(args, pods...)
	case "trace":
		args = append(append(args, pods...), "--to", "192.0.2.1:80")
	}
	return args
}

// finding is what commands have said one by.
type finding struct{ What, Next string }

// Read reads what a command has printed.
func Read(command string, out []byte) (said Said, err error) {
	var t struct {
		Items []struct {
			Name, Node, Verdict, What, Next, Error string

			Findings []finding
			Warnings json.RawMessage
			Cluster  struct{ Findings []finding }
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
	for _, i := range t.Items {
		switch {
		case command != "check":
			add(&said.Wrong, i.Name, append(i.Findings, i.Cluster.Findings...)...)
			var warnings []finding
			if err := json.Unmarshal(i.Warnings, &warnings); err == nil { // those of explain are about the pod's manifest
				add(&said.Warnings, i.Name, warnings...)
			}
			if i.Error != "" && command == "trace" { // which says what is valid, too
				add(&said.Wrong, i.Name, finding{i.Error, i.Error})
			}
		case i.Verdict == "not well":
			add(&said.Wrong, i.Node, finding{i.What, i.Next})
		case i.Verdict == "warning":
			add(&said.Warnings, i.Node, finding{i.What, i.Next})
		}
	}
	return said, nil
}

// Package faulttable says which command of the operator's tool shows which fault, and by which words. The end-to-end
// test makes each fault and compares; docs/troubleshooting.md has the same table.
package faulttable

import (
	"fmt"
	"strings"
)

// Fault is something that is wrong on one node, or with one pod there.
type Fault struct {
	Name string
	// Shows are the commands that find it. Every other one that is compared finds nothing and ends with status 0.
	Shows []Finding
}

// Finding is what a command has to print of a fault.
type Finding struct {
	Command    string
	Exit       int
	What, Next string // parts of what it finds, and of what to do
}

// Commands are those that are compared at each fault.
var Commands = []string{"status", "explain", "check", "version", "trace"}

// Of returns what a command has to find, nil for nothing.
func (f Fault) Of(command string) *Finding {
	for i := range f.Shows {
		if f.Shows[i].Command == command {
			return &f.Shows[i]
		}
	}
	return nil
}

// Page is the table as the documentation has it.
func Page() string {
	var page strings.Builder
	page.WriteString("| fault | command | finds | and says what to do | exit |\n|---|---|---|---|---|\n")
	for _, f := range Table {
		for _, s := range f.Shows {
			fmt.Fprintf(&page, "| %s | `%s` | `%s` | `%s` | %d |\n", f.Name, s.Command, s.What, s.Next, s.Exit)
		}
	}
	return page.String()
}

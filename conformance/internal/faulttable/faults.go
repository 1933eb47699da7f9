// Package faulttable says which command of the operator's tool shows which fault, and by which words, and which alerts
// fire. Tests make each fault and compare; docs/faults.md and docs/alerts.md have the same tables.
package faulttable

import (
	"fmt"
	"slices"
	"strings"
)

// Fault is something that is wrong on one node, or with one pod there.
type Fault struct {
	Name string
	By   By
	// Shows are the commands that find it. Every other one that is compared (Commands) finds nothing and ends with status
	// 0. A second one of the same command is what that says of pods of the node that are not hurt, and cannot be asked
	// about.
	Shows []Finding
	// Alerts are those that fire while it lasts, and no others. Only faults of EndToEnd have any: elsewhere there is no
	// Prometheus.
	Alerts []string
}

// By is the command that makes a fault and compares.
type By string

// The commands.
const (
	EndToEnd By = "make e2e"
	Kernels  By = "make kernels"
	Compare  By = "make compare QUICK=1"
	Proving  By = "make e2e RUN=TestVerify" // alone, for a run of verify takes a minute
)

// Finding is what a command has to print of a fault. With status 0 it warns: all works, and somebody should know.
type Finding struct {
	Command    string
	Exit       int
	What, Next string // parts of what it finds, and of what to do
}

// Commands returns those that are compared at each fault that is made by a command. What needs every API of a cluster
// is compared by make e2e alone.
func (by By) Commands() []string {
	if by == Proving {
		return []string{Verify}
	}
	commands := []string{"status", "explain", "check", "version", "trace"}
	if by == EndToEnd {
		commands = append(commands, live, sysdump)
	}
	return commands
}

// Of returns what a command has to find, nil for nothing.
func (f Fault) Of(command string) *Finding {
	for i := range f.Shows {
		if f.Shows[i].Command == command {
			return &f.Shows[i]
		}
	}
	return nil
}

// Unasked is what a command has to say of pods of the node that are not hurt, nil for nothing.
func (f Fault) Unasked(command string) *Finding {
	for i := len(f.Shows) - 1; i >= 0; i-- {
		if its := &f.Shows[i]; its.Command == command && its != f.Of(command) {
			return its
		}
	}
	return nil
}

// is reports whether that is what was found.
func (want Finding) is(found Found) bool {
	return strings.Contains(found.What, want.What) && strings.Contains(found.Next, want.Next)
}

// MadeBy are the faults that a command makes.
func MadeBy(by By) (all []Fault) {
	for _, f := range Table {
		if f.By == by {
			all = append(all, f)
		}
	}
	return all
}

// tells reports whether the table has what was found, of whom it is about. What one command says another may repeat.
func (f Fault) tells(found Found, about []string) bool {
	return slices.Contains(about, found.About) && slices.ContainsFunc(f.Shows, func(its Finding) bool {
		return its.is(found)
	})
}

// Judge is an error unless a command, which ended with that status, said of the fault what it has to, and nothing of
// whom it is not about; and unless the table has whatever it warns of a node or a pod.
func (f Fault) Judge(command string, status int, said Said, about ...string) error {
	want, exit, of := f.Of(command), 0, said.Wrong
	if want != nil {
		exit = want.Exit
		switch exit {
		case 0:
			of = said.Warnings
		case notAsked:
			of = slices.Concat(said.Wrong, said.Warnings)
		}
	}
	has := want != nil && slices.ContainsFunc(of, func(it Found) bool {
		return slices.Contains(about, it.About) && want.is(it)
	})
	unasked := f.Unasked(command)
	asked := (unasked == nil) == (len(said.Unasked) == 0) && !slices.ContainsFunc(said.Unasked,
		func(it Found) bool { return !unasked.is(it) })
	unhurt := slices.ContainsFunc(said.Wrong, func(it Found) bool { return !slices.Contains(about, it.About) })
	warns := slices.ContainsFunc(said.Warnings, func(it Found) bool { return it.About != "" && !f.tells(it, about) })
	if status == exit && asked && !unhurt && !warns && (has || want == nil) && (exit != 0 || len(said.Wrong) == 0) {
		return nil
	}
	return fmt.Errorf("%s: %s: status %d: %+v; want %+v, of %q", f.Name, command, status, said, want, about)
}

// notAsked is the exit status of what could not be asked.
const notAsked = 3

// Page is the table of commands as the documentation has it.
func Page() string {
	var page strings.Builder
	page.WriteString("| fault | command | finds | and says what to do | exit |\n|---|---|---|---|---|\n")
	for _, f := range Table {
		for _, s := range f.Shows {
			fmt.Fprintf(&page, "| %s | `%s` | `%s` | `%s` | %d |\n", f.name(), s.Command, s.What, s.Next, s.Exit)
		}
		var well []string
		for _, command := range f.By.Commands() {
			if f.Of(command) == nil {
				well = append(well, "`"+command+"`")
			}
		}
		if len(well) > 0 {
			fmt.Fprintf(&page, "| %s | %s | nothing: all is well | | 0 |\n", f.name(), strings.Join(well, ", "))
		}
	}
	return page.String()
}

// AlertsPage is the table of alerts as the documentation has it.
func AlertsPage() string {
	var page strings.Builder
	page.WriteString("| fault | alert |\n|---|---|\n")
	for _, f := range MadeBy(EndToEnd) {
		alerts := "none"
		if len(f.Alerts) > 0 {
			alerts = "`" + strings.Join(f.Alerts, "`, `") + "`"
		}
		fmt.Fprintf(&page, "| %s | %s |\n", f.Name, alerts)
	}
	return page.String()
}

// name is the fault's, with the command that makes it where that is not the usual one.
func (f Fault) name() string {
	if f.By == EndToEnd {
		return f.Name
	}
	return fmt.Sprintf("%s (`%s`)", f.Name, f.By)
}

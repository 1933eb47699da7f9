// Package faulttable has the table of faults: which command of istio-pod-networkctl reports which fault, with which
// words, and which alerts fire. Tests create each fault and compare. docs/faults.md and docs/alerts.md have the same
// tables.
package faulttable

import (
	"fmt"
	"slices"
	"strings"
)

// Fault is something that is wrong on one node, or with one pod on it.
type Fault struct {
	Name string
	By   By
	// Shows are the commands that find the fault. All other commands that Commands returns find nothing and exit with
	// status 0. A second entry of the same command is what it says of other pods on the node that it cannot check.
	Shows []Finding
	// Alerts are all alerts that fire during the fault. Only faults of EndToEnd have alerts, because only those tests have
	// a Prometheus.
	Alerts []string
}

// By is the command that runs the tests of a fault.
type By string

// The commands.
const (
	EndToEnd By = "make e2e"
	Kernels  By = "make kernels"
	Compare  By = "make compare QUICK=1"
	Proving  By = "make e2e RUN=TestVerify" // separate, because a run of verify takes a minute
)

// Finding is what a command must print about a fault. With exit status 0 it is a warning.
type Finding struct {
	Command    string
	Exit       int
	What, Next string // substrings of the finding, and of the next step
}

// Commands returns the commands that the tests compare for each fault. Commands that need a full cluster are only in
// make e2e.
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

// Of returns what a command must find, or nil for nothing.
func (f Fault) Of(command string) *Finding {
	for i := range f.Shows {
		if f.Shows[i].Command == command {
			return &f.Shows[i]
		}
	}
	return nil
}

// Unasked returns what a command must say of other pods on the node, or nil for nothing.
func (f Fault) Unasked(command string) *Finding {
	for i := len(f.Shows) - 1; i >= 0; i-- {
		if its := &f.Shows[i]; its.Command == command && its != f.Of(command) {
			return its
		}
	}
	return nil
}

// is reports whether a command has printed the finding.
func (want Finding) is(found Found) bool {
	return strings.Contains(found.What, want.What) && strings.Contains(found.Next, want.Next)
}

// MadeBy returns the faults that a command creates.
func MadeBy(by By) (all []Fault) {
	for _, f := range Table {
		if f.By == by {
			all = append(all, f)
		}
	}
	return all
}

// tells reports whether the table has a finding about one of about. Any command may report it.
func (f Fault) tells(found Found, about []string) bool {
	return slices.Contains(about, found.About) && slices.ContainsFunc(f.Shows, func(its Finding) bool {
		return its.is(found)
	})
}

// Judge compares what a command said with the table. It returns an error unless the exit status is right, and the
// command reported the fault about one of about, and reported nothing as wrong about others. A warning about a node or
// pod must be in the table too.
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

// notAsked is the exit status of a command that could not check something.
const notAsked = 3

// Page returns the table of commands for the documentation, in Markdown.
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

// AlertsPage returns the table of alerts for the documentation, in Markdown.
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

// name returns the fault's name, with the command that creates it if that is not EndToEnd.
func (f Fault) name() string {
	if f.By == EndToEnd {
		return f.Name
	}
	return fmt.Sprintf("%s (`%s`)", f.Name, f.By)
}

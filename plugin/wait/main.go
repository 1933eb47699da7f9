// Package wait is the program of the init container, istio-pod-network-wait: it ends with success once the pod's own
// network namespace is proven to have its packet rules, and so holds back the sidecar and the app until then.
//
// There are two proofs. An annotation of the pod, read from a downward API file, says that the rules were written, and
// names the network namespace that they were written to: the own one's identity must equal it, because a status may be
// pasted into a pod template or be of a sandbox that is gone. And a probe: a connection made by the program itself is
// redirected. Neither needs a capability, a particular user, a writable file system or a token.
package wait

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/istio-pod-network/controller/internal/program"
	"github.com/istio-pod-network/controller/internal/program/flags"
	"github.com/istio-pod-network/controller/plugin/record"
)

// Exit codes beside those that all programs have. 126 is what Istio's validation container ends with, and what tools
// that repair pods look for.
const (
	exitReady       = program.ExitDone
	exitNotReady    = 126
	exitInterrupted = 130 // SIGINT
	exitTerminated  = 143 // SIGTERM
)

// process holds the process' edges, so that it is tested without a process.
type process struct {
	program.Program
	args    []string // without the program's name
	signals <-chan os.Signal
	self    func() (record.NetNS, error)
	probe   prober
	watch   watcher
}

// Main runs the program as this process, and returns the exit code.
func Main() int {
	// Before anything else: process 1 of a container ignores a signal that it does not ask for.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	p := process{
		Program: program.New("istio-pod-network-wait", help), args: os.Args[1:], signals: signals,
		self: record.CurrentNetNS, probe: probe, watch: watchDir,
	}
	return p.run()
}

// run returns the exit code.
func (p process) run() int {
	o, status, ended := p.parse()
	if ended {
		return status
	}
	return p.wait(o)
}

// parse reads the command line. Where nothing is left to do, ended is true, and status the exit code.
func (p process) parse() (o options, status int, ended bool) {
	o = defaults()
	args := p.args
	if len(args) > 0 && args[0] == "init" { // the command of the 2018 controller's program
		args = args[1:]
	}
	status, ended = flags.Parse(p.Program, o.flags(), "", args)
	return o, status, ended
}

// sayf writes a line to standard error.
func (p process) sayf(format string, args ...any) {
	fmt.Fprintf(p.Stderr, p.Name+": "+format+"\n", args...)
}

// Package wait is istio-pod-network-wait, the program of the init container. It succeeds once the packet rules are
// proven to be in the pod's own network namespace, and holds back the sidecar and the app until then.
//
// There are two proofs. The first is the mark: annotations of the pod, read from a downward API file, say that the
// rules were written, and to which network namespace. That must be this one, because annotations may be copied into a
// pod template, or describe a sandbox that is gone. The second is the probe: the program makes a connection, and it is
// redirected. Neither proof needs a capability, a particular user, a writable file system or a token.
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

// Exit codes beside those of all programs. Istio's validation container (istio-validation) ends with 126, and tools
// that repair pods look for it.
const (
	exitReady       = program.ExitDone
	exitNotReady    = 126
	exitInterrupted = 130 // SIGINT
	exitTerminated  = 143 // SIGTERM
)

// process holds the connections to the outside, so that tests run the wait without a process.
type process struct {
	program.Program
	args    []string // without the program's name
	signals <-chan os.Signal
	self    func() (record.NetNS, error)
	probe   prober
	watch   watcher
}

// Main runs the program with the arguments and standard streams of this process, and returns the exit code: 0 if the
// rules are proven, 126 if not, 2 for wrong usage, 130 or 143 after SIGINT or SIGTERM.
func Main() int {
	// This comes first: the kernel does not deliver a signal to process 1 of a container without a handler.
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

// parse parses the command line. If ended is true, nothing is left to do, and status is the exit code.
func (p process) parse() (o options, status int, ended bool) {
	o = defaults()
	args := p.args
	if len(args) > 0 && args[0] == "init" { // the subcommand of the 2018 controller's program
		args = args[1:]
	}
	status, ended = flags.Parse(p.Program, o.flags(), "", args)
	return o, status, ended
}

// sayf writes a line to standard error.
func (p process) sayf(format string, args ...any) {
	fmt.Fprintf(p.Stderr, p.Name+": "+format+"\n", args...)
}

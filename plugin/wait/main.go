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
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/istio-pod-network/controller/internal/buildinfo"
	"github.com/istio-pod-network/controller/plugin/record"
)

// Exit codes. 126 is what Istio's validation container ends with, and what tools that repair pods look for.
const (
	exitReady       = 0
	exitUsage       = 2
	exitNotReady    = 126
	exitInterrupted = 130 // SIGINT
	exitTerminated  = 143 // SIGTERM
)

// program holds the process' edges, so that it is tested without a process.
type program struct {
	args           []string // without the program's name
	stdout, stderr io.Writer
	signals        <-chan os.Signal
	self           func() (record.NetNS, error)
	probe          prober
	watch          watcher
}

// Main runs the program as this process, and returns the exit code.
func Main() int {
	// Before anything else: process 1 of a container ignores a signal that it does not ask for.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	p := program{
		args: os.Args[1:], stdout: os.Stdout, stderr: os.Stderr, signals: signals,
		self: record.CurrentNetNS, probe: probe, watch: watchDir,
	}
	return p.run()
}

// run returns the exit code.
func (p program) run() int {
	o, err := parseFlags(p.args)
	switch {
	case err != nil:
		fmt.Fprintf(p.stderr, "istio-pod-network-wait: %v; see --help\n", err)
		return exitUsage
	case o.help:
		fmt.Fprintf(p.stdout, help, buildVersion())
		return exitReady
	case o.version:
		fmt.Fprintln(p.stdout, "istio-pod-network-wait", buildVersion())
		return exitReady
	}
	return p.wait(o)
}

func buildVersion() string { return buildinfo.Version() }

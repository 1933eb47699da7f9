// Package agent is the program istio-pod-network-agent, which runs once per node. It keeps the CNI plugin installed, tells the
// plugin what the API server knows of a pod, and tells the pod, by annotations, what the plugin did: that its network namespace
// is initialized. It writes no packet rules: the plugin alone does.
//
// Every part leaves the node in a working state when the agent ends: the plugin stays chained, records wait for the next
// agent, and a plugin that has a question waits for it. docs/agent.md describes it for operators.
package agent

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/istio-pod-network/controller/internal/buildinfo"
)

// Exit statuses.
const (
	exitFailed = 1
	exitUsage  = 2
)

// program holds the process' edges.
type program struct {
	getenv         func(string) string
	stdout, stderr io.Writer
}

// Main runs the program as this process, and returns the exit status.
func Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	p := program{os.Getenv, os.Stdout, os.Stderr}
	return p.run(ctx, os.Args[1:])
}

// run returns the exit status.
func (p program) run(ctx context.Context, args []string) int {
	if len(args) > 0 && args[0] == "uninstall-all" {
		return p.uninstallAll(ctx, args[1:])
	}
	o, err := p.parse(args)
	if err == nil {
		err = o.readEntry()
	}
	if err == nil {
		err = o.askPlugin(ctx)
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errVersion):
		fmt.Fprintln(p.stdout, "istio-pod-network-agent", buildinfo.Version())
		return 0
	case err != nil:
		fmt.Fprintf(p.stderr, "istio-pod-network-agent: %v; see --help\n", err)
		return exitUsage
	}
	log := newLogger(o.logLevel, o.logFormat, p.stderr)
	if o.uninstall {
		err = uninstallNode(ctx, o, log)
	} else if a, failed := newAgent(o, log); failed == nil {
		err = a.run(ctx)
	} else {
		err = failed
	}
	if err != nil {
		log.Error(err)
		return exitFailed
	}
	if !o.uninstall {
		log.Info("ended; the plugin stays installed")
	}
	return 0
}

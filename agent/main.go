// Package agent is the program istio-pod-network-agent, which runs once per node. It keeps the CNI plugin installed. It
// tells the plugin what the API server knows of a pod. It writes annotations to the pod that say what the plugin did,
// so that the pod knows whether its network namespace is initialized. It writes no packet rules: only the plugin does.
//
// The node keeps working when the agent ends: the plugin stays chained, records wait for the next agent, and a plugin
// that asks a question waits for it, too. docs/agent.md describes the agent for operators.
package agent

import (
	"context"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/istio-pod-network/controller/internal/program"
	"github.com/istio-pod-network/controller/internal/program/flags"
	"github.com/sirupsen/logrus"
)

const name = "istio-pod-network-agent"

// envPrefix is the prefix of the environment variables for flags.
const envPrefix = "AGENT_"

// memoryGoal is Go's soft memory limit in bytes (GOMEMLIMIT, runtime/debug.SetMemoryLimit): above it the garbage
// collector runs more often. Reading large pods makes much garbage. With this limit, the agent and the mapped pages of
// its binary stay below the memory limit in the chart, 128 MiB. Without such pods the agent needs a third of it, and
// the limit changes nothing.
const memoryGoal = 72 << 20

// Main runs the program with the arguments of this process, and returns the exit status.
func Main() int {
	if os.Getenv("GOMEMLIMIT") == "" { // otherwise the runtime has read the limit from it
		debug.SetMemoryLimit(memoryGoal)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if len(os.Args) > 1 && os.Args[1] == "uninstall-all" {
		return uninstallAll(ctx, program.New(name+" uninstall-all", uninstallAllHelp), os.Args[2:])
	}
	if len(os.Args) > 1 && os.Args[1] == "inspect" {
		return inspectCommand(ctx, program.New(name+" inspect", inspectHelp), os.Args[2:])
	}
	if len(os.Args) > 1 && os.Args[1] == "probe" {
		return probeCommand(ctx, program.New(name+" probe", probeHelp), os.Args[2:])
	}
	return run(ctx, program.New(name, help), os.Args[1:])
}

// Run runs the agent of one node until ctx ends, with these arguments, and returns the exit status. Several may run in
// one process: they share no client, no rate limit and no metrics.
func Run(ctx context.Context, args []string, stderr io.Writer) int {
	p := program.New(name, help)
	p.Stderr = stderr
	return run(ctx, p, args)
}

// run does the work of Main and Run for an agent, and returns the exit status.
func run(ctx context.Context, p program.Program, args []string) int {
	var o options
	set := o.flags()
	p.Help = flags.Help(p.Help, set)
	if status, ended := flags.Parse(p, set, envPrefix, args); ended {
		return status
	}
	if err := o.complete(ctx); err != nil {
		return p.Misused(err)
	}
	log := newLogger(o.logLevel, o.logFormat, p.Stderr)
	if o.uninstall {
		uninstallNode(ctx, o, log)
		return ended(log, nil)
	}
	a, err := newAgent(o, log)
	if err == nil {
		err = a.run(ctx)
	}
	if err == nil {
		log.Info("ended; the plugin stays installed")
	}
	return ended(log, err)
}

// ended logs the error, if there is one, and returns the exit status.
func ended(log *logrus.Logger, err error) int {
	if err != nil {
		log.Error(err)
		return program.ExitFailed
	}
	return program.ExitDone
}

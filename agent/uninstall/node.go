// Package uninstall uninstalls the plugin: from this node, and by the agents of all nodes from a cluster.
package uninstall

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/install"
	"github.com/sirupsen/logrus"
)

// settleRounds is how many rounds in a row nobody may need the binary before it is removed. A pod that is being created
// may already have the plugin in its network without being known. That lasts no longer than an ADD.
const settleRounds = 12

// Node runs instead of an agent with --uninstall. It uninstalls the plugin from this node, and keeps it uninstalled
// until the process ends. Its readiness says that the plugin is uninstalled. It marks no pods and answers no questions.
type Node struct {
	config  install.Config
	every   time.Duration
	version func(context.Context) (string, error)
	stays   func(why string)
	log     *logrus.Logger

	unneeded int  // in rounds
	told     bool // whether stays was called

	mu    sync.Mutex
	out   bool
	state string
}

// NewNode returns a Node that checks the node at the given interval. version reads the node's container runtime, and is
// called until it is known. stays is called once if the binary cannot be removed yet, with the reason: if the process
// ends then, the binary remains.
func NewNode(
	config install.Config, every time.Duration, version func(context.Context) (string, error), stays func(why string),
	log *logrus.Logger,
) *Node {
	return &Node{config: config, every: every, version: version, stays: stays, log: log, state: "not looked at yet"}
}

// Run uninstalls until the context ends.
func (n *Node) Run(ctx context.Context) {
	for warned := false; ; {
		if err := n.learnVersion(ctx); err != nil && !warned {
			warned = true
			n.log.WithError(err).Warn("the container runtime is not known: the binary stays while there are pods that it " +
				"may delete by our entry")
		}
		n.report(n.remove())
		select {
		case <-ctx.Done():
			return
		case <-time.After(n.every):
		}
	}
}

// learnVersion reads the version of the container runtime, unless it is known.
func (n *Node) learnVersion(ctx context.Context) (err error) {
	if n.config.RuntimeVersion == "" {
		n.config.RuntimeVersion, err = n.version(ctx)
	}
	return err
}

// remove removes what is there, the configuration first. It returns what is left, and whether that is all that can be
// done. It checks everything in every round: a primary CNI that restores its own configuration may restore our entry
// with it.
func (n *Node) remove() (state string, done bool, err error) {
	if err := install.Uninstall(n.config, false); err != nil {
		return "", false, err
	}
	if err := install.Needs(n.config); err != nil {
		n.unneeded = 0
		return n.keep(err)
	}
	// In the modes for Multus, Multus writes its file about a pod before it calls the plugin.
	multus := n.config.Mode == install.ModeNAD || n.config.Mode == install.ModeAux
	if !multus && !install.DeletesByCurrent(n.config.RuntimeVersion) {
		if n.unneeded++; n.unneeded <= settleRounds {
			return "out of the network; the binary stays for a moment, in which a pod that is being made would be known",
				false, nil
		}
	}
	if err := install.Uninstall(n.config, true); err != nil {
		return n.keep(err)
	}
	return "out of the network; binary and records are gone", true, nil
}

// keep returns the state for the error of a purge.
func (n *Node) keep(err error) (state string, done bool, failed error) {
	if !install.IsNeeded(err) {
		return "", false, err
	}
	if !n.told {
		n.told = true
		n.stays(install.Explain(err))
	}
	return "out of the network; " + err.Error(), true, nil
}

// report stores the result of a round, and logs what is new.
func (n *Node) report(state string, done bool, err error) {
	level := logrus.InfoLevel
	if err != nil {
		state, level = install.Explain(err), logrus.ErrorLevel
	}
	n.mu.Lock()
	fresh := state != n.state
	n.out, n.state = done, state
	n.mu.Unlock()
	if fresh {
		n.log.Log(level, state)
	}
}

// Ready returns whether the plugin is uninstalled from this node, except for a binary that pods need for their
// deletion.
func (n *Node) Ready() (out bool, state string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.out, strings.ReplaceAll(n.state, "\n", ";")
}

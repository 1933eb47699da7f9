// Package uninstall takes the plugin out: out of this node, and, by the agents of all nodes, out of a cluster.
package uninstall

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/install"
	"github.com/sirupsen/logrus"
)

// settleRounds is for how many rounds nobody may have needed the binary before it goes: a pod that is being made has
// the plugin in its network already, and is not known yet. That lasts as long as an ADD.
const settleRounds = 12

// Node is what runs instead of an agent with --uninstall: it takes the plugin out of this node, keeps it out until it
// is ended, and says by its readiness that it is out. It marks nothing and answers nobody.
type Node struct {
	config  install.Config
	every   time.Duration
	version func(context.Context) (string, error)
	stays   func(why string)
	log     *logrus.Logger

	unneeded int  // rounds
	told     bool // that the binary stays

	mu    sync.Mutex
	out   bool
	state string
}

// NewNode returns one that looks after the node so often. version reads which container runtime the node has, and is
// called while that is not known. stays is told, once, that the binary cannot go yet, and why: who ends the process
// then leaves it behind.
func NewNode(
	config install.Config, every time.Duration, version func(context.Context) (string, error), stays func(why string),
	log *logrus.Logger,
) *Node {
	return &Node{config: config, every: every, version: version, stays: stays, log: log, state: "not looked at yet"}
}

// Run removes until the context ends.
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

// learnVersion asks for the container runtime until it is known.
func (n *Node) learnVersion(ctx context.Context) (err error) {
	if n.config.RuntimeVersion == "" {
		n.config.RuntimeVersion, err = n.version(ctx)
	}
	return err
}

// remove takes out what is there, the configuration first, and says what is left, and whether that is all that can be
// done. Everything is looked at again in every round: a primary CNI that restores its own configuration may restore our
// entry with it.
func (n *Node) remove() (state string, done bool, err error) {
	if err := install.Uninstall(n.config, false); err != nil {
		return "", false, err
	}
	if err := install.Needs(n.config); err != nil {
		n.unneeded = 0
		return n.keep(err)
	}
	// Multus, in its modes, has noted a pod before it calls the plugin.
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

// keep is what becomes of the error of a purge.
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

// report takes note of a round, and logs what is new.
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

// Ready says whether the plugin is out of this node, but for a binary that pods need to be deleted.
func (n *Node) Ready() (out bool, state string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.out, strings.ReplaceAll(n.state, "\n", ";")
}

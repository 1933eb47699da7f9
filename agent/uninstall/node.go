// Package uninstall takes the plugin out: out of this node, and, by the agents of all nodes, out of a cluster.
package uninstall

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/install"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/sirupsen/logrus"
)

// Node is what runs instead of an agent with --uninstall: it takes the plugin out of this node, keeps it out until it
// is ended, and says by its readiness that it is out. It marks nothing and answers nobody.
type Node struct {
	config  install.Config
	store   record.Store
	every   time.Duration
	version func(context.Context) (string, error)
	log     *logrus.Logger

	mu    sync.Mutex
	out   bool
	state string
}

// NewNode returns one that looks after the node so often. version reads which container runtime the node has, and is
// called if the configuration does not say it.
func NewNode(
	config install.Config, store record.Store, every time.Duration,
	version func(context.Context) (string, error), log *logrus.Logger,
) *Node {
	config.StateDir = store.Dir
	return &Node{config: config, store: store, every: every, version: version, log: log, state: "not looked at yet"}
}

// Run removes until the context ends.
func (n *Node) Run(ctx context.Context) {
	if n.config.RuntimeVersion == "" {
		var err error
		if n.config.RuntimeVersion, err = n.version(ctx); err != nil {
			n.log.WithError(err).Warn("the container runtime is not known: the binary stays while there are records of pods")
		}
	}
	for {
		n.report(n.remove())
		select {
		case <-ctx.Done():
			return
		case <-time.After(n.every):
		}
	}
}

// remove takes out what is there, the configuration first, and says what is left. Everything is looked at again in
// every round: a primary CNI that restores its own configuration may restore our entry with it.
func (n *Node) remove() (state string, err error) {
	if err := install.Uninstall(n.config, false); err != nil {
		return "", err
	}
	records, unreadable := n.store.List()
	if pods := len(records) + len(unreadable); pods > 0 && !n.runsDELWithout() {
		return fmt.Sprintf("out of the network; the binary stays until the runtime has run it for the DEL of %d pods",
			pods), nil
	}
	if err := install.Uninstall(n.config, true); err != nil {
		return "", err
	}
	return "out of the network; binary and records are gone", nil
}

// runsDELWithout reports whether the runtime deletes a pod by the configuration of now, in which the plugin is no
// longer named. containerd does; CRI-O and Multus use the one that the pod was made with, and need the binary until
// then.
func (n *Node) runsDELWithout() bool {
	return n.config.Mode == install.ModeChain && strings.HasPrefix(n.config.RuntimeVersion, "containerd://")
}

// report takes note of a round, and logs what is new.
func (n *Node) report(state string, err error) {
	level := logrus.InfoLevel
	if err != nil {
		state, level = install.Explain(err), logrus.ErrorLevel
	}
	n.mu.Lock()
	fresh := state != n.state
	n.out, n.state = err == nil, state
	n.mu.Unlock()
	if fresh {
		n.log.Log(level, state)
	}
}

// Ready says whether the plugin is out of this node's network.
func (n *Node) Ready() (out bool, state string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.out, strings.ReplaceAll(n.state, "\n", ";")
}

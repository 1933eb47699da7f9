package agent

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/install"
	"github.com/sirupsen/logrus"
)

// remover is what runs instead of an agent with --uninstall: it takes the plugin out of this node, keeps it out until it is
// ended, and says by its readiness that it is out. It marks nothing and answers nobody.
type remover struct {
	options
	log     *logrus.Logger
	metrics *metrics
	version func(context.Context) (string, error) // of the container runtime, from the node's object

	mu   sync.Mutex
	out  bool
	said string
}

func newRemover(o options, log *logrus.Logger) *remover {
	r := &remover{options: o, log: log, metrics: newMetrics(), said: "not looked at yet"}
	r.install.StateDir = o.store.Dir
	r.version = func(ctx context.Context) (string, error) {
		api, err := connect(o)
		if err != nil {
			return "", err
		}
		return api.runtimeVersion(ctx, o.node)
	}
	return r
}

// run removes until the context ends.
func (r *remover) run(ctx context.Context) error {
	r.log.WithFields(logrus.Fields{"version": buildVersion(), "node": r.node, "stateDir": r.store.Dir}).Info("taking the plugin out of this node")
	web, err := net.Listen("tcp", r.listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	serving := make(chan error, 1)
	alive := []condition{{"uninstalling", func() (bool, string) { return true, "running" }}}
	go func() { serving <- serveHTTP(ctx, web, r.metrics, alive, []condition{{"uninstalled", r.ready}}) }()
	if r.install.RuntimeVersion == "" {
		if r.install.RuntimeVersion, err = r.version(ctx); err != nil {
			r.log.WithError(err).Warn("the container runtime is not known: the binary stays while there are records of pods")
		}
	}
	for {
		text, err := r.remove()
		r.report(text, err)
		select {
		case err := <-serving:
			return err
		case <-time.After(r.every):
		}
	}
}

// remove takes out what is there, the configuration first, and says what is left. Everything is looked at again in every
// round: a primary CNI that restores its own configuration may restore our entry with it.
func (r *remover) remove() (string, error) {
	if err := install.Uninstall(r.install, false); err != nil {
		return "", err
	}
	records, unreadable := r.store.List()
	if n := len(records) + len(unreadable); n > 0 && !r.runsDELWithout() {
		return fmt.Sprintf("out of the network; the binary stays until the runtime has run it for the DEL of %d pods", n), nil
	}
	if err := install.Uninstall(r.install, true); err != nil {
		return "", err
	}
	return "out of the network; binary and records are gone", nil
}

// runsDELWithout reports whether the runtime deletes a pod by the configuration of now, in which the plugin is no longer
// named. containerd does; CRI-O and Multus use the one that the pod was made with, and need the binary until then.
func (r *remover) runsDELWithout() bool {
	return r.install.Mode == install.ModeChain && strings.HasPrefix(r.install.RuntimeVersion, "containerd://")
}

// report takes note of a round, and logs what is new.
func (r *remover) report(text string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.out = err == nil; !r.out {
		text = install.Explain(err)
	}
	if text == r.said {
		return
	}
	r.said = text
	if r.out {
		r.log.Info(text)
	} else {
		r.log.Error(text)
	}
}

// ready says whether the plugin is out of this node's network.
func (r *remover) ready() (bool, string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out, strings.ReplaceAll(r.said, "\n", ";")
}

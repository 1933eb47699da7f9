package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/sirupsen/logrus"
)

// untainter takes the startup taint from this node whenever it is there and the agent is ready. Nodes are born with the
// taint, so that no pod that does not tolerate it comes before the plugin; who manages nodes may give it to them again.
type untainter struct {
	key    string
	every  time.Duration
	ready  func() bool
	have   func(key string) (have, known bool) // whether the node has the taint, as far as the watch has brought it
	remove func(ctx context.Context, key string) (removed bool, err error)
	log    *logrus.Logger
}

// run looks until the context ends. What it looks at is in memory: a request is made where the taint is there, and once
// where that is not known, as with rights that do not include the watch.
func (u untainter) run(ctx context.Context) {
	logged, done := "", false
	for {
		have, known := u.have(u.key)
		if (have || !known && !done) && u.ready() {
			removed, err := u.remove(ctx, u.key)
			done = err == nil
			switch {
			case err == nil && removed:
				u.log.WithField("taint", u.key).Info("ready: removed the startup taint of this node")
			case err == nil: // the node was born without, an earlier agent has removed it, or the watch is behind
			case err.Error() != logged:
				u.log.WithError(err).WithField("taint", u.key).Warn("removing the startup taint of this node; it is tried again")
			}
			if logged = ""; err != nil {
				logged = err.Error()
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(kube.Spread(u.every)):
		}
	}
}

// taintsOf watches the taints of this node, where one is to be taken from it; else it returns nil.
func (o *options) taintsOf(api *kube.Client) (taints *kube.Taints, all watches, err error) {
	if o.startupTaint == "" {
		return nil, nil, nil
	}
	if taints, err = kube.NewTaints(api.NodeOf(o.node)); err != nil {
		return nil, nil, fmt.Errorf("watching the taints of this node: %w", err)
	}
	return taints, watches{{"node", taints.Failing}}, nil
}

// untaint takes the startup taint from the node while ready, until the context ends. Without taints it does nothing.
func (o *options) untaint(
	ctx context.Context, api *kube.Client, taints *kube.Taints, ready func() bool, log *logrus.Logger,
) {
	if taints == nil {
		return
	}
	var watch sync.WaitGroup
	watch.Go(func() { taints.Run(ctx) })
	untainter{
		key: o.startupTaint, every: o.every, ready: ready, log: log, have: taints.Have,
		remove: func(ctx context.Context, key string) (bool, error) { return api.RemoveTaint(ctx, o.node, key) },
	}.run(ctx)
	watch.Wait()
}

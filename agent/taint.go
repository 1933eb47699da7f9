package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/sirupsen/logrus"
)

// untainter removes the startup taint from this node whenever it is there and the agent is ready. Nodes register with
// the taint, so that only pods that tolerate it are scheduled before the plugin is installed. Whoever manages the nodes
// may add it again.
type untainter struct {
	key    string
	every  time.Duration
	ready  func() bool
	have   func(key string) (have, known bool) // known is false until the watch has brought the node
	remove func(ctx context.Context, key string) (removed bool, err error)
	log    *logrus.Logger
}

// run removes the taint until ctx ends. It decides by what is in memory, and sends a request only if the node has the
// taint. If that is not known, for example because RBAC does not allow the watch, it sends one request.
func (u untainter) run(ctx context.Context) {
	logged, done := "", false
	failing := u.backoff()
	for {
		pause := kube.Spread(u.every)
		have, known := u.have(u.key)
		if (have || !known && !done) && u.ready() {
			removed, err := u.remove(ctx, u.key)
			done = err == nil
			switch {
			case err == nil && removed:
				u.log.WithField("taint", u.key).Info("ready: removed the startup taint of this node")
			case err == nil: // the node registered without it, somebody else has removed it, or the watch is late
			case err.Error() != logged:
				u.log.WithError(err).WithField("taint", u.key).Warn("removing the startup taint of this node; it is tried again")
			}
			if err == nil {
				logged, failing = "", u.backoff()
			} else {
				logged, pause = err.Error(), failing()
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// backoff returns the pauses after failures: at most a minute with the default for every, because the node takes no pod
// until the taint is gone.
func (u untainter) backoff() (pause func() time.Duration) { return kube.Backoff(u.every, 12*u.every) }

// taintsOf returns a watch of this node's taints, nil without --startup-taint.
func (o *options) taintsOf(api *kube.Client) (taints *kube.Taints, all watches, err error) {
	if o.startupTaint == "" {
		return nil, nil, nil
	}
	if taints, err = kube.NewTaints(api.NodeOf(o.node)); err != nil {
		return nil, nil, fmt.Errorf("watching the taints of this node: %w", err)
	}
	return taints, watches{{"node", taints.Failing}}, nil
}

// untaint removes the startup taint from the node whenever the agent is ready, until ctx ends. If taints is nil, it
// does nothing.
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

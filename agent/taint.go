package agent

import (
	"context"
	"time"

	"github.com/sirupsen/logrus"
)

// untainter removes the startup taint of this node once the agent is ready. Nodes are born with the taint, so that no
// pod that does not tolerate it comes before the plugin.
type untainter struct {
	key    string
	every  time.Duration
	ready  func() bool
	remove func(ctx context.Context, key string) (removed bool, err error)
	log    *logrus.Logger
}

// run ends when the taint is gone.
func (u untainter) run(ctx context.Context) {
	logged := ""
	for {
		if u.ready() {
			removed, err := u.remove(ctx, u.key)
			switch {
			case err == nil && removed:
				u.log.WithField("taint", u.key).Info("ready: removed the startup taint of this node")
				return
			case err == nil:
				return // the node was born without, or an earlier agent has removed it
			case err.Error() != logged:
				logged = err.Error()
				u.log.WithError(err).WithField("taint", u.key).Warn("removing the startup taint of this node; it is tried again")
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(u.every):
		}
	}
}

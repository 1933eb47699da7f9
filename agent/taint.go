package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
)

// untainter removes the startup taint of this node once the agent is ready. Nodes are born with the taint, so that no pod
// that does not tolerate it comes before the plugin.
type untainter struct {
	key    string
	every  time.Duration
	ready  func() bool
	remove func(ctx context.Context, key string) (removed bool, err error)
	log    *logrus.Logger
}

// run ends when the taint is gone.
func (u untainter) run(ctx context.Context) {
	said := ""
	for {
		if u.ready() {
			removed, err := u.remove(ctx, u.key)
			switch {
			case err == nil && removed:
				u.log.WithField("taint", u.key).Info("ready: removed the startup taint of this node")
				return
			case err == nil:
				return // the node was born without, or an earlier agent has removed it
			case err.Error() != said:
				said = err.Error()
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

// removeTaint removes a node's taints of a key. It changes no node that somebody else has changed since it was read.
func (a *apiServer) removeTaint(ctx context.Context, node, key string) (removed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	for {
		var object corev1.Node
		if err := a.core.Get().Resource("nodes").Name(node).Do(ctx).Into(&object); err != nil {
			return false, err
		}
		left := slices.DeleteFunc(slices.Clone(object.Spec.Taints), func(t corev1.Taint) bool { return t.Key == key })
		if len(left) == len(object.Spec.Taints) {
			return false, nil
		}
		taints, err := json.Marshal(left)
		if err != nil {
			return false, err
		}
		patch := fmt.Appendf(nil, `{"metadata": {"resourceVersion": %q}, "spec": {"taints": %s}}`, object.ResourceVersion, taints)
		err = a.core.Patch(types.MergePatchType).Resource("nodes").Name(node).Body(patch).Do(ctx).Error()
		if !apierrors.IsConflict(err) {
			return err == nil, err
		}
	}
}

package patrol

import (
	"context"
	"time"

	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/flowcontrol"
)

// A result of a renewal, for the metric.
const renewed = "renewed"

// Renewals lists the results of a renewal.
var Renewals = []string{renewed, failed}

const (
	// The new rules may be worse for somebody than the old ones: an operator who watches can stop after a few pods.
	renewalsAtOnce = 5
	renewalsRate   = 1 // per second
	// renewAgain is the time between two renewals of a pod, whatever their result.
	renewAgain = 5 * time.Minute
)

// RenewConfig has the settings and dependencies of a Renewer.
type RenewConfig struct {
	Namespaces redirect.Globs // the namespaces whose pods are renewed
	// Plugin is the path of this release's plugin, whose rules are compared. The installed one may be of another
	// release.
	Plugin   string
	Repairer *Repairer // runs the plugin
	Warner   *Warner
	Renewals *prometheus.CounterVec // by result
	Log      *logrus.Logger
}

// Renewer has the plugin replace the rules of another release in running pods by those of this release.
type Renewer struct {
	RenewConfig
	limit flowcontrol.PassiveRateLimiter
}

// NewRenewer returns a Renewer.
func NewRenewer(c RenewConfig) *Renewer {
	return &Renewer{c, flowcontrol.NewTokenBucketPassiveRateLimiter(renewalsRate, renewalsAtOnce)}
}

// remedy says how a pod of the namespace gets the current rules.
func (r *Renewer) remedy(namespace string) string {
	if r.Namespaces.Match(namespace) {
		return "The agent has the plugin replace them, as renewRules asks"
	}
	return "Delete the pod, so that it is made again with the rules of now, or have them replaced by the chart's value " +
		"renewRules"
}

// renew has the rules of a record renewed, if it is the pod's turn.
func (r *Renewer) renew(ctx context.Context, pod *corev1.Pod, its record.Record, s *sighting, now time.Time) {
	if !r.Namespaces.Match(pod.Namespace) || now.Before(s.renewAt) || ctx.Err() != nil || !r.limit.TryAccept() {
		return
	}
	s.renewAt = now.Add(renewAgain)
	sandbox, netns, err := r.Repairer.sandboxes.attached(its)
	if err == nil {
		sandbox.args += ";ISTIO_POD_NETWORK_RENEW=true"
		err = r.Repairer.run(ctx, "ADD", r.Plugin, sandbox, netns)
	}
	if err != nil {
		r.Renewals.WithLabelValues(failed).Inc()
		r.Warner.warn(pod, eventRenewal, "The pod's packet rules were written by another release of istio-pod-network, and "+
			"could not be renewed: %v. They stay in force, and it is tried again. Or delete the pod, so that it is made again",
			err)
		return
	}
	r.Renewals.WithLabelValues(renewed).Inc()
	r.Warner.tell(pod, eventRenewed, "The pod's packet rules, which another release of istio-pod-network had written, "+
		"were replaced by those of now, as renewRules asks. Connections that were open have not been touched")
	r.Log.WithFields(logrus.Fields{"pod": pod.Namespace + "/" + pod.Name, "sandbox": its.ContainerID}).
		Info("renewed the rules of a pod")
	r.Warner.retract(pod.UID, eventRenewal)
}

package agent

import (
	"sync"
	"time"

	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/agent/mark"
	"github.com/istio-pod-network/controller/agent/patrol"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/sirupsen/logrus"
)

// observer counts and logs new records and attempts to mark pods.
type observer struct {
	metrics   *metrics
	pods      *kube.Pods
	warner    *patrol.Warner
	log       *logrus.Logger
	uncounted sync.Map // keys of the records that existed when the agent started
}

// recorded is called for every new record. fresh is false for records that existed when the agent started. The earlier
// agent has counted these, unless it did not mark their pods: attempted counts such a record when it marks the pod.
func (o *observer) recorded(r record.Record, fresh bool) {
	if fresh {
		o.metrics.added(r)
		return
	}
	o.uncounted.Store(recordKey(r), true)
}

func recordKey(r record.Record) string { return r.ContainerID + " " + r.IfName }

// attempted is called after every attempt to mark a pod.
func (o *observer) attempted(r record.Record, result mark.Result, err error) {
	o.metrics.marks.WithLabelValues(string(result)).Inc()
	log := o.log.WithFields(logrus.Fields{
		"pod": r.Namespace + "/" + r.Name, "sandbox": r.ContainerID, "decision": r.Decision, "reason": r.Reason,
		"result": result, "ms": float64(r.DurationMicroseconds) / 1000,
	})
	if r.Backend != "" {
		log = log.WithField("backend", r.Backend)
	}
	pod := o.pods.WithID(mark.PodID(r))
	if pod != nil {
		o.warner.AboutRecord(pod, r)
	}
	if pod != nil && (result == mark.Marked || result == mark.AlreadyOn) {
		o.warner.AboutMark(pod)
	}
	switch result {
	case mark.Marked:
		if _, uncounted := o.uncounted.LoadAndDelete(recordKey(r)); uncounted {
			o.metrics.added(r)
		}
		o.metrics.markLatency.Observe(time.Since(r.Time).Seconds())
		log.Info("pod marked")
	case mark.Failed:
		log.WithError(err).Warn("marking the pod; it is tried again")
		if pod != nil && kube.IsRefusal(err) {
			o.warner.AboutRefusedMark(pod, err)
		}
	default:
		o.uncounted.Delete(recordKey(r))
		log.Debug("nothing written")
	}
}

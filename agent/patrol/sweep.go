package patrol

import (
	"context"
	"time"

	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/sirupsen/logrus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// sweep removes the records whose sandbox is gone and for which no DEL has come.
func (p *Patrol) sweep(ctx context.Context, records map[string][]record.Record, now time.Time) {
	kept := map[string]time.Time{}
	for id, its := range records {
		for _, r := range its {
			why := p.orphaned(id, r, its)
			if why == "" {
				continue
			}
			key := r.ContainerID + " " + r.IfName
			since, known := p.orphans[key]
			if !known {
				since = now
			}
			// After a reboot no DEL comes. Otherwise the runtime may be late.
			due := why == orphanBoot || now.Sub(since) >= p.SweepAfter
			if due && why == orphanPod && !p.isGone(ctx, r) {
				due, since = false, now // the pod is over, and is no longer watched: it is asked about again after SweepAfter
			}
			if due {
				p.drop(r, why)
			} else {
				kept[key] = since
			}
		}
	}
	p.orphans = kept
}

// Why a record is swept.
const (
	orphanBoot       = "reboot"     // its network namespace was that of an earlier boot
	orphanSuperseded = "superseded" // the pod has another sandbox
	orphanPod        = "pod-gone"
)

// Sweeps lists all these reasons.
var Sweeps = []string{orphanBoot, orphanSuperseded, orphanPod}

// orphaned returns why the record's sandbox must be gone, or "" if it may still exist.
func (p *Patrol) orphaned(id string, r record.Record, its []record.Record) string {
	if r.NetNS.Boot() != p.Boot {
		return orphanBoot
	}
	for _, other := range its {
		if other.NetNS != r.NetNS && other.IfName == r.IfName && other.Network == r.Network && other.Time.After(r.Time) {
			return orphanSuperseded
		}
	}
	if p.Pods.WithID(id) == nil {
		return orphanPod
	}
	return ""
}

// isGone asks the API server whether the pod of a record is really gone, because the cache may be late. After an error,
// the API server is not asked again in this round: asking about every record would delay the rounds.
func (p *Patrol) isGone(ctx context.Context, r record.Record) bool {
	if p.away {
		return false
	}
	pod, err := p.Reader.Pod(kube.Patient(ctx), r.Namespace, r.Name)
	if err != nil {
		p.away = !apierrors.IsNotFound(err)
		return !p.away
	}
	return !kube.IsMeant(pod, r.PodUID)
}

func (p *Patrol) drop(r record.Record, why string) {
	log := p.Log.WithFields(logrus.Fields{
		"pod": r.Namespace + "/" + r.Name, "sandbox": r.ContainerID, "ifname": r.IfName, "because": why,
	})
	if err := p.Store.Delete(r.ContainerID, r.IfName); err != nil {
		log.WithError(err).Warn("removing a stale record")
		return
	}
	p.Metrics.Swept.WithLabelValues(why).Inc()
	log.Info("removed a stale record")
}

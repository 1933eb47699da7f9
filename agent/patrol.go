package agent

import (
	"context"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// patrol looks for what no event tells: pods that the plugin never saw, waits that do not end, records without a sandbox.
type patrol struct {
	options
	boot       bootID
	pods       *podCache
	namespaces *namespaceCache
	records    *recordIndex
	marker     *marker
	install    *installation
	repairer   *repairer
	warner     *warner
	metrics    *metrics
	read       func(ctx context.Context, namespace, name string) (*corev1.Pod, error) // from the API server
	log        *logrus.Logger

	suspects  map[string]int           // by UID: rounds in which a pod seemed to bypass the mesh
	early     map[string]int           // by UID: rounds in which a pod seemed to have come too early
	confirmed map[string]bool          // by UID: the API server was asked about a pod, and had it
	away      bool                     // the API server, in this round
	orphans   map[string]time.Time     // by container ID and interface: since when a record has no pod
	bypassed  atomic.Pointer[[]string] // names of the pods that do
	last      atomic.Int64             // end of the last round, Unix nanoseconds
}

// certain is in how many rounds a pod has to seem to bypass the mesh: between two sandboxes its status is a moment late.
const certain = 2

// run goes its rounds until the context ends.
func (p *patrol) run(ctx context.Context) {
	p.suspects, p.early, p.confirmed, p.orphans = map[string]int{}, map[string]int{}, map[string]bool{}, map[string]time.Time{}
	tick := time.NewTicker(p.every)
	defer tick.Stop()
	var hourly time.Time
	for {
		if p.pods.synced() && p.namespaces.synced() && p.records.ready() {
			p.round(ctx, time.Now())
		}
		if time.Since(hourly) > time.Hour {
			// Containerd never calls GC: temporary files of plugins that were killed go here.
			_, _ = p.store.GC("", func(string, string) bool { return true })
			hourly = time.Now()
		}
		p.last.Store(time.Now().UnixNano())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// round looks at every pod and every record once.
func (p *patrol) round(ctx context.Context, now time.Time) {
	p.away = false
	records := p.records.byPod()
	existing, bypassed := map[string]bool{}, []string{}
	var broken []*corev1.Pod // that lack what the plugin should have done
	for _, pod := range p.pods.all() {
		existing[string(pod.UID)] = true
		p.lookAtSettings(pod)
		r, recorded := p.recordOf(pod, records)
		stuck := recorded && p.lookAtWait(pod, r, now)
		around := p.lookForBypass(ctx, pod, recorded)
		if around {
			bypassed = append(bypassed, pod.Namespace+"/"+pod.Name)
		}
		if p.repairer.concerns(!recorded && p.cameEarly(pod), around, stuck) && p.exists(ctx, pod) {
			broken = append(broken, pod)
		}
	}
	slices.Sort(bypassed)
	p.bypassed.Store(&bypassed)
	p.metrics.bypassed.Set(float64(len(bypassed)))
	p.warner.forget(func(uid string) bool { return existing[uid] })
	for _, counts := range []map[string]int{p.suspects, p.early} {
		maps.DeleteFunc(counts, func(uid string, _ int) bool { return !existing[uid] })
	}
	maps.DeleteFunc(p.confirmed, func(uid string, _ bool) bool { return !existing[uid] })
	p.sweep(ctx, records, now)
	p.repair(ctx, broken)
}

// recordOf returns the record that speaks for a pod.
func (p *patrol) recordOf(pod *corev1.Pod, records map[string][]record.Record) (record.Record, bool) {
	var its []record.Record
	for _, id := range podIDs(pod) {
		its = append(its, records[id]...)
	}
	return p.boot.current(its)
}

// lookAtSettings warns of what is wrong with the pod's own settings.
func (p *patrol) lookAtSettings(pod *corev1.Pod) {
	if namespace, known := p.namespaces.known(pod.Namespace); known && !isMirror(pod) && !isOver(pod) && !pod.Spec.HostNetwork {
		p.warner.aboutSettings(pod, namespace, p.policy)
	}
}

// lookAtWait reports a wait that goes on in a pod that carries its mark: the record may be about a sandbox that is gone, or the pod
// does not see the mark.
func (p *patrol) lookAtWait(pod *corev1.Pod, r record.Record, now time.Time) (stuck bool) {
	name, running := waiting(pod)
	since, written := p.marker.markedSince(podID(r))
	if running == nil || !written || r.Decision != record.Redirect {
		return false
	}
	if running.StartedAt.After(since) {
		since = running.StartedAt.Time
	}
	if now.Sub(since) <= p.stuckAfter {
		return false
	}
	p.warner.warn(pod, eventStuck, "The packet rules are in place and the pod is marked, but its init container %s is still waiting. Its log says "+
		"for what; most often it does not see the pod's annotations (a downward API volume mounted by subPath is never refreshed)", name)
	return true
}

// cameEarly reports whether the pod has a network, waits for what the plugin should have left, and would have been served by it: the network
// was made before the plugin was chained. A pod that waits for nothing is not touched: it has been running without us.
func (p *patrol) cameEarly(pod *corev1.Pod) bool {
	namespace, known := p.namespaces.known(pod.Namespace)
	if !known || pod.Spec.HostNetwork || isOver(pod) || len(pod.Status.PodIPs) == 0 || held(pod) == "" || p.install.chainedSince().IsZero() {
		delete(p.early, string(pod.UID))
		return false
	}
	decision, err := redirect.Decide(factsOf(pod, namespace), p.policy)
	if err != nil || decision.Verdict != redirect.Redirect && !decision.MeshAnnotated {
		return false
	}
	p.early[string(pod.UID)]++
	return p.repairer.mode == repairApply || p.early[string(pod.UID)] >= certain // the plugin is asked for its record, or it may be on its way
}

// lookForBypass reports whether the pod is known to bypass the mesh, and says so when it becomes known. It stays known until
// the pod is gone or has its rules: that the plugin was chained anew meanwhile helps later pods only.
func (p *patrol) lookForBypass(ctx context.Context, pod *corev1.Pod, recorded bool) bool {
	uid := string(pod.UID)
	if recorded { // should it lack one again, the API server is asked again
		delete(p.confirmed, uid)
	}
	namespace, known := p.namespaces.known(pod.Namespace)
	switch {
	case recorded || isOver(pod):
	case p.suspects[uid] >= certain:
		return true
	case known && bypasses(pod, namespace, p.policy, p.install.chainedSince()):
		if p.suspects[uid]++; p.suspects[uid] < certain {
			return false
		}
		if !p.exists(ctx, pod) {
			p.suspects[uid]--
			return false
		}
		p.noteBypass(pod)
		return true
	}
	delete(p.suspects, uid)
	p.warner.retract(uid, eventBypass)
	return false
}

// noteBypass says that the runtime did not run the plugin.
func (p *patrol) noteBypass(pod *corev1.Pod) {
	p.metrics.bypasses.Inc()
	p.warner.warn(pod, eventBypass, "The container runtime did not run the plugin for this mesh pod, although it was chained when the pod's "+
		"network was made: the pod has no packet rules, and an init wait in it does not end. %s", p.repairer.remedy())
	p.install.distrustDropIn()
}

// repair has the pods repaired. One that waits is repaired at the first look; if the runtime should have run the plugin for it, that is known
// then, too.
func (p *patrol) repair(ctx context.Context, broken []*corev1.Pod) {
	chained := p.install.chainedSince()
	for _, pod := range p.repairer.repair(ctx, broken, p.warner) {
		namespace, known := p.namespaces.known(pod.Namespace)
		if p.suspects[string(pod.UID)] < certain && known && bypasses(pod, namespace, p.policy, chained) {
			p.suspects[string(pod.UID)] = certain
			p.noteBypass(pod)
		}
	}
}

// exists asks the API server, once, whether a pod of the cache is still to live. While the watch is behind, a pod that is gone looks as if it
// had lost its record. An API server that does not answer is not asked again in this round.
func (p *patrol) exists(ctx context.Context, pod *corev1.Pod) bool {
	uid := string(pod.UID)
	if p.confirmed[uid] || p.away {
		return p.confirmed[uid]
	}
	now, err := p.read(ctx, pod.Namespace, pod.Name)
	if p.away = err != nil && !apierrors.IsNotFound(err); err != nil || now.UID != pod.UID || isOver(now) {
		return false
	}
	p.confirmed[uid] = true
	return true
}

// sweep removes the records whose sandbox is gone and whose DEL never came.
func (p *patrol) sweep(ctx context.Context, records map[string][]record.Record, now time.Time) {
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
			due := why == orphanBoot || now.Sub(since) >= p.sweepAfter // after a reboot no DEL comes; else the runtime may be late
			if due && why == orphanPod {
				due = p.isGone(ctx, r)
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

// orphaned returns why the record's sandbox must be gone, "" if it need not be.
func (p *patrol) orphaned(id string, r record.Record, its []record.Record) string {
	if !p.boot.isOf(r) {
		return orphanBoot
	}
	for _, other := range its {
		if other.NetNS != r.NetNS && other.IfName == r.IfName && other.Network == r.Network && other.Time.After(r.Time) {
			return orphanSuperseded
		}
	}
	if p.pods.withID(id) == nil {
		return orphanPod
	}
	return ""
}

// isGone asks the API server whether the pod of a record is really gone: the cache may be late. An API server that does not answer is not
// asked again in this round: asking about every record would keep the patrol from its rounds.
func (p *patrol) isGone(ctx context.Context, r record.Record) bool {
	if p.away {
		return false
	}
	pod, err := p.read(ctx, r.Namespace, r.Name)
	if err != nil {
		p.away = !apierrors.IsNotFound(err)
		return !p.away
	}
	return !isMeant(pod, r.PodUID)
}

func (p *patrol) drop(r record.Record, why string) {
	log := p.log.WithFields(logrus.Fields{"pod": r.Namespace + "/" + r.Name, "sandbox": r.ContainerID, "ifname": r.IfName, "because": why})
	if err := p.store.Delete(r.ContainerID, r.IfName); err != nil {
		log.WithError(err).Warn("removing a stale record")
		return
	}
	p.metrics.swept.WithLabelValues(why).Inc()
	log.Info("removed a stale record")
}

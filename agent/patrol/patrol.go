// Package patrol regularly looks for what no event reports: pods without rules, waits that do not end, and records
// without a sandbox. It creates Events, has the installed plugin repair pods, and removes stale records.
package patrol

import (
	"context"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/agent/mark"
	"github.com/istio-pod-network/controller/internal/podfacts"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
)

// Config has the settings and dependencies of a Patrol.
type Config struct {
	Every      time.Duration // between two rounds
	StuckAfter time.Duration // how long an init wait may run in a marked pod
	SweepAfter time.Duration // how long the record of a pod that is gone is kept for the runtime's DEL
	Policy     redirect.Policy
	Boot       record.BootID
	Store      record.Store

	Pods         *kube.Pods
	Namespaces   *kube.Namespaces
	Reader       kube.PodReader
	Records      Records
	Marks        Marks
	Questions    Questions
	Installation Installation

	Repairer *Repairer
	Renewer  *Renewer
	Warner   *Warner
	Metrics  Metrics
	Log      *logrus.Logger
}

// Records are the node's records, by the ID of the pod in the record.
type Records interface {
	Ready() bool // they have been read
	ByPod() map[string][]record.Record
}

// Marks are the marks that the agent has written.
type Marks interface {
	MarkedSince(id string) (at time.Time, marked bool)
	Wrote(id string) bool // whether this agent has, and not an earlier one
}

// Installation is the installation of the plugin on this node.
type Installation interface {
	ChainedSince() time.Time // zero if it is not chained; now if somebody repeatedly removes it
	ChainedFirst() time.Time // with the current settings; zero if it never was
	DistrustDropIn()         // the runtime does not read the drop-in
}

// Metrics are the metrics of a Patrol.
type Metrics struct {
	Bypasses prometheus.Counter
	Bypassed prometheus.Gauge       // currently
	Refusing *prometheus.GaugeVec   // currently, by the family that the sidecar refuses
	Outside  *prometheus.GaugeVec   // currently, by verdict
	Older    prometheus.Gauge       // currently
	Waiting  prometheus.Gauge       // currently, for long
	Swept    *prometheus.CounterVec // by the reason why the record was stale
}

// Patrol looks at all pods and records in regular rounds.
type Patrol struct {
	Config
	seen     map[types.UID]*sighting
	away     bool                 // the API server did not answer in this round
	chained  time.Time            // since when the plugin is chained, as of this round; zero if it is not
	first    time.Time            // when it was chained first, as of this round
	orphans  map[string]time.Time // by container ID and interface: since when a record has no sandbox
	known    knownBypasses
	bypassed names // pods that bypass the mesh
	outside  names // pods outside the mesh that seem to belong to it
	older    names // pods with rules of another release
	rendered rendered
	last     atomic.Int64 // end of the last round, in Unix nanoseconds

	cached    []sandbox // libcni's cache, in this round
	cacheRead bool
}

// names are names of pods, as of the last round. Other goroutines read them concurrently.
type names struct{ atomic.Pointer[[]string] }

func (n *names) load() []string {
	if all := n.Load(); all != nil {
		return *all
	}
	return nil
}

func (n *names) store(all []string) {
	slices.Sort(all)
	n.Store(&all)
}

// sighting is what earlier rounds have found about a pod.
type sighting struct {
	bypass    int  // rounds in which it seemed to bypass the mesh
	early     int  // rounds in which it seemed to have come too early
	confirmed bool // the API server was asked about it, and has it
	gone      bool // the API server was asked about it, and no longer has it: no pod comes back
	missed    bool // its network was made while the plugin was not chained, so the runtime is not to blame

	renewAt time.Time // when its rules may be renewed again

	network string            // the network that then is about
	then    map[string]string // the annotations when that network was made
}

// certain is in how many rounds a pod has to seem to bypass the mesh: between two sandboxes its status is briefly
// outdated.
const certain = 2

// BypassesFile is the file in the state directory that tells the next agent in this boot of the bypasses.
const BypassesFile = "bypasses.json"

// New returns a Patrol that has not started, with the bypasses that an earlier one has found.
func New(c Config) *Patrol {
	p := &Patrol{Config: c, known: knownBypasses{path: filepath.Join(c.Store.Dir, BypassesFile)}}
	p.seen = p.known.load()
	return p
}

// Run makes rounds until the context ends.
func (p *Patrol) Run(ctx context.Context) {
	tick := time.NewTicker(p.Every)
	defer tick.Stop()
	var cleaned time.Time
	for {
		if p.Pods.Synced() && p.Namespaces.Synced() && p.Records.Ready() {
			p.round(ctx, time.Now())
		}
		if time.Since(cleaned) > time.Minute {
			_ = p.Store.RemoveStale() // containerd never calls GC, which would do it
			cleaned = time.Now()
		}
		p.last.Store(time.Now().UnixNano())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// LastRound returns when the last round ended, or the zero time if none has.
func (p *Patrol) LastRound() (at time.Time) {
	if last := p.last.Load(); last != 0 {
		at = time.Unix(0, last)
	}
	return at
}

// Bypassed returns the names of the pods that bypass the mesh, as of the last round.
func (p *Patrol) Bypassed() []string { return p.bypassed.load() }

// Outside returns the names of the pods that are outside the mesh although their current annotations put them into it.
func (p *Patrol) Outside() []string { return p.outside.load() }

// Older returns the names of the pods whose rules another release has written, if this one would write others.
func (p *Patrol) Older() []string { return p.older.load() }

// round looks at every pod and every record once.
func (p *Patrol) round(ctx context.Context, now time.Time) {
	p.away, p.cacheRead = false, false
	p.chained, p.first = p.Installation.ChainedSince(), p.Installation.ChainedFirst()
	stays := !p.chained.IsZero() && p.chained.Before(now) // a pod that is created now gets its rules
	records := p.Records.ByPod()
	verdicts, before := map[verdict][]string{}, p.seen
	older, hashes := []string{}, rendered{}
	p.seen = map[types.UID]*sighting{}
	refusing, waiting := 0, 0
	var broken []*corev1.Pod // pods that lack what the plugin should have done
	for _, pod := range p.Pods.All() {
		name, s := pod.Namespace+"/"+pod.Name, before[pod.UID]
		if s == nil {
			s = &sighting{}
		}
		p.seen[pod.UID] = s
		r, recorded := p.recordOf(pod, records)
		its, known := hashes.of(r, p.rendered, p.Store)
		if p.lookAtSettings(pod, r, its) {
			refusing++
		}
		if kube.WaitsLong(pod, now, p.StuckAfter) {
			waiting++
		}
		stuck := recorded && p.lookAtWait(pod, r, now)
		if known && !kube.IsOver(pod) && its.isOlder(r) {
			older = append(older, name)
			p.tellOlder(pod)
			p.Renewer.renew(ctx, pod, r, s, now)
		}
		v := p.lookForBypass(ctx, pod, s, recorded)
		verdicts[v] = append(verdicts[v], name)
		bypasses := v == bypass && (stays || !s.missed) // otherwise its successor would bypass the mesh, too
		if p.Repairer.concerns(!recorded && p.cameEarly(pod, s), bypasses, stuck) && p.exists(ctx, pod, s) {
			broken = append(broken, pod)
		}
	}
	p.Metrics.Refusing.WithLabelValues(redirect.IPv6.String()).Set(float64(refusing))
	p.publish(verdicts)
	p.older.store(older)
	p.Metrics.Older.Set(float64(len(older)))
	p.Metrics.Waiting.Set(float64(waiting))
	p.rendered = hashes
	// A pod that has appeared meanwhile is not in seen yet, but may already have a mark, a warning or a question.
	exists := func(uid types.UID) bool { return p.seen[uid] != nil || p.Pods.WithID(string(uid)) != nil }
	p.Warner.forget(exists)
	p.Questions.Forget(exists)
	p.sweep(ctx, records, now)
	p.repair(ctx, broken)
	if err := p.known.keep(p.seen); err != nil {
		p.Log.WithError(err).Warn("remembering the pods that bypass the mesh")
	}
}

// publish stores the names of the pods for each verdict, and sets the metrics.
func (p *Patrol) publish(verdicts map[verdict][]string) {
	bypassed, outside := verdicts[bypass], slices.Concat(verdicts[late], verdicts[unknown])
	p.bypassed.store(bypassed)
	p.outside.store(outside)
	p.Metrics.Bypassed.Set(float64(len(bypassed)))
	for _, v := range Outside {
		p.Metrics.Outside.WithLabelValues(v).Set(float64(len(verdicts[verdict(v)])))
	}
}

// recordOf returns the current record of a pod.
func (p *Patrol) recordOf(pod *corev1.Pod, records map[string][]record.Record) (record.Record, bool) {
	var its []record.Record
	for _, id := range kube.IDs(pod) {
		its = append(its, records[id]...)
	}
	return mark.Current(p.Boot, its)
}

// lookAtSettings warns about a pod's own settings, and returns whether its sidecar refuses a family. r is the pod's
// record, or zero; its is what is known of the settings in it.
func (p *Patrol) lookAtSettings(pod *corev1.Pod, r record.Record, its written) (refuses bool) {
	namespace, known := p.Namespaces.Known(pod.Namespace)
	if !known || kube.IsMirror(pod) || kube.IsOver(pod) || pod.Spec.HostNetwork {
		return false
	}
	told := pod.Annotations[annotation.Status] != "" && !p.Marks.Wrote(string(pod.UID))
	return p.Warner.aboutSettings(pod, namespace, p.Policy, r, its, told)
}

// lookAtWait reports a wait that does not end in a marked pod: the record may be about a sandbox that is gone, or the
// pod does not see the mark.
func (p *Patrol) lookAtWait(pod *corev1.Pod, r record.Record, now time.Time) (stuck bool) {
	name, state := podfacts.InitWait(pod)
	since, marked := p.Marks.MarkedSince(mark.PodID(r))
	if state.Running == nil || !marked || r.Decision != record.Redirect {
		return false
	}
	if state.Running.StartedAt.After(since) {
		since = state.Running.StartedAt.Time
	}
	if now.Sub(since) <= p.StuckAfter {
		return false
	}
	p.Warner.warn(pod, eventStuck, "The packet rules are in place and the pod is marked, but its init container %s is "+
		"still waiting. Its log says for what; most often it does not see the pod's annotations (a downward API volume "+
		"mounted by subPath is never refreshed)", name)
	return true
}

// cameEarly reports whether the pod has a network, waits for the plugin's mark, and would have been served by the
// plugin: its network was made before the plugin was chained. A pod that does not wait is left alone: it has been
// running without us.
func (p *Patrol) cameEarly(pod *corev1.Pod, s *sighting) bool {
	decision, concerns := p.decide(pod)
	if !concerns || !podfacts.IsHeld(pod) {
		s.early = 0
		return false
	}
	if decision.Verdict != redirect.Redirect && !decision.MeshAnnotated {
		return false
	}
	s.early++
	return p.Repairer.Mode == Apply || s.early >= certain // Apply checks the store; else the record may be on its way
}

// decide returns the plugin's decision about a pod that has a network and is not over, if the plugin is chained.
func (p *Patrol) decide(pod *corev1.Pod) (d redirect.Decision, concerns bool) {
	namespace, known := p.Namespaces.Known(pod.Namespace)
	if !known || pod.Spec.HostNetwork || kube.IsOver(pod) || len(pod.Status.PodIPs) == 0 || p.chained.IsZero() {
		return d, false
	}
	d, err := redirect.Decide(podfacts.Of(pod, namespace), p.Policy)
	return d, err == nil
}

// lookForBypass returns the verdict about a pod, and reports a new one. A bypass remains one until the pod is gone or
// has its rules: chaining the plugin again, and new annotations, only affect later networks.
func (p *Patrol) lookForBypass(ctx context.Context, pod *corev1.Pod, s *sighting, recorded bool) verdict {
	if recorded { // if it lacks one again, the API server is asked again
		s.confirmed = false
	}
	v := fine
	switch {
	case recorded || kube.IsOver(pod):
	case s.bypass >= certain:
		return bypass
	default:
		v = p.judge(pod, s)
	}
	if v == bypass && s.bypass+1 < certain {
		s.bypass++
		return fine
	}
	if v != fine && !p.exists(ctx, pod, s) {
		return fine
	}
	if v == bypass {
		p.noteBypass(pod, s)
		return v
	}
	s.bypass = 0
	p.Warner.retract(pod.UID, eventBypass)
	p.tellOutside(pod, v)
	return v
}

// noteBypass reports that the plugin was not run, and whether the runtime is to blame.
func (p *Patrol) noteBypass(pod *corev1.Pod, s *sighting) {
	s.bypass = certain
	p.Metrics.Bypasses.Inc()
	if s.missed {
		p.Warner.warn(pod, eventBypass, "The network of this mesh pod was made while the plugin was not chained on this "+
			"node: the pod has no packet rules, and runs outside the mesh. %s", p.Repairer.remedy())
		return
	}
	p.Warner.warn(pod, eventBypass, "The container runtime did not run the plugin for this mesh pod, although it was "+
		"chained when the pod's network was made: the pod has no packet rules, and an init wait in it does not end. %s",
		p.Repairer.remedy())
	p.Installation.DistrustDropIn()
}

// repair has the pods repaired. A waiting pod is repaired in the first round. If the runtime should have run the plugin
// for it, that is then known, too.
func (p *Patrol) repair(ctx context.Context, broken []*corev1.Pod) {
	for _, pod := range p.Repairer.repair(ctx, broken) {
		if s := p.seen[pod.UID]; s.bypass < certain && p.judge(pod, s) == bypass {
			p.noteBypass(pod, s)
		}
	}
}

// exists asks the API server, once, whether a pod of the cache still exists and is not over. If the watch is late, a
// pod that is gone looks as if it had lost its record. After an error, the API server is not asked again in this round.
func (p *Patrol) exists(ctx context.Context, pod *corev1.Pod, s *sighting) bool {
	if s.confirmed || s.gone || p.away {
		return s.confirmed
	}
	now, err := p.Reader.Pod(kube.Patient(ctx), pod.Namespace, pod.Name)
	p.away = err != nil && !apierrors.IsNotFound(err)
	s.confirmed = err == nil && now.UID == pod.UID && !kube.IsOver(now)
	s.gone = !p.away && !s.confirmed
	return s.confirmed
}

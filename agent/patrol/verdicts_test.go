package patrol

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/podfacts"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// waitingSince has an init wait run in the pod for the given time.
func waitingSince(pod *corev1.Pod, age time.Duration) {
	started := metav1.NewTime(time.Now().Add(-age))
	pod.Spec.InitContainers = []corev1.Container{{Name: "wait", Command: []string{"/" + podfacts.WaitProgram}}}
	pod.Status.InitContainerStatuses = []corev1.ContainerStatus{
		{Name: "wait", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: started}}},
	}
}

// beforeUs makes the pod's network older than the chaining of the plugin.
func beforeUs(pod *corev1.Pod) { pod.Status.StartTime = &metav1.Time{Time: time.Unix(0, 0)} }

// wasAway makes the plugin's first chaining long ago, and its last one at since; zero means that it is not chained.
func wasAway(b *beat, since time.Time) {
	b.installation.first, b.installation.since = time.Unix(1, 0), since
}

// What a patrol reports about one pod, after one round and after more, and which conditions a bypass needs.
func TestVerdicts(t *testing.T) {
	const long, short = 2 * time.Minute, 30 * time.Second
	shared := int64(1337)
	redirected := func(b *beat, pod *corev1.Pod) { b.records["r"] = agenttest.RecordFor(pod, "1/1") }
	markedFor := func(age time.Duration) func(*beat, *corev1.Pod) {
		return func(b *beat, pod *corev1.Pod) {
			redirected(b, pod)
			b.marks[string(pod.UID)] = time.Now().Add(-age)
		}
	}
	for name, c := range map[string]struct {
		pod    func(*corev1.Pod)
		scene  func(*beat, *corev1.Pod)
		first  []string // reasons of the Events of the first round
		later  []string // reasons after two more rounds
		words  string   // in one of them
		bypass bool
		away   bool // the runtime had no plugin to run, so nothing speaks against drop-ins
	}{
		"with its rules": {scene: redirected},
		"a bypass": {later: []string{eventBypass}, words: "Delete the pod, so that it is made again",
			bypass: true},
		"the plugin is not chained":  {scene: func(b *beat, _ *corev1.Pod) { b.installation.since = time.Time{} }},
		"made before it was chained": {pod: beforeUs},
		"made before it came, and it is away": {pod: beforeUs, scene: func(b *beat, _ *corev1.Pod) {
			b.installation.since, b.installation.first = time.Time{}, time.Unix(1, 0)
		}},
		"made while it was away": {scene: func(b *beat, _ *corev1.Pod) { wasAway(b, time.Time{}) },
			later: []string{eventBypass}, words: "made while the plugin was not chained on this node", bypass: true, away: true},
		"made while it was away, and it is back": {
			scene: func(b *beat, _ *corev1.Pod) { wasAway(b, time.Now().Add(time.Minute)) },
			later: []string{eventBypass}, words: "Delete the pod, so that it is made again", bypass: true, away: true},
		"made while it was away, not in the mesh": {pod: func(p *corev1.Pod) { p.Annotations = nil },
			scene: func(b *beat, _ *corev1.Pod) { wasAway(b, time.Time{}) }},
		"made while it was away, and it waits": {pod: func(p *corev1.Pod) { waitingSince(p, short) },
			scene: func(b *beat, _ *corev1.Pod) { wasAway(b, time.Time{}) }},
		"not in the mesh":         {pod: func(p *corev1.Pod) { p.Annotations = nil }},
		"over":                    {pod: func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }},
		"in an unknown namespace": {pod: func(p *corev1.Pod) { p.Namespace = "unknown" }},

		"a stuck wait": {
			pod: func(p *corev1.Pod) { waitingSince(p, long) }, scene: markedFor(long), first: []string{eventStuck},
			words: "container wait is still waiting",
		},
		"a wait that has just begun": {pod: func(p *corev1.Pod) { waitingSince(p, short) }, scene: markedFor(long)},
		"a mark that has just come":  {pod: func(p *corev1.Pod) { waitingSince(p, long) }, scene: markedFor(short)},
		"a wait without a mark":      {pod: func(p *corev1.Pod) { waitingSince(p, long) }, scene: redirected},
		"a mark without a wait":      {scene: markedFor(long)},
		"a wait that needs no rules": {
			pod: func(p *corev1.Pod) { waitingSince(p, long) },
			scene: func(b *beat, pod *corev1.Pod) {
				markedFor(long)(b, pod)
				r := b.records["r"]
				r.Decision = record.Untouched
				b.records["r"] = r
			},
		},
		"a wait that came too early": {
			pod:   func(p *corev1.Pod) { waitingSince(p, short); beforeUs(p) },
			later: []string{eventEarly}, words: "with the chart's value repair the agent does more",
		},

		"an annotation that cannot be read": {
			pod: func(p *corev1.Pod) { p.Annotations[annotation.ExcludeOutboundPorts] = "x" }, scene: redirected,
			first: []string{eventInvalid},
			words: annotation.ExcludeOutboundPorts,
		},
		"the sidecar's user": {
			pod:   func(p *corev1.Pod) { p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &shared} },
			scene: redirected,
			first: []string{eventSharedUser}, words: "Container app runs with the user 1337",
		},
		"such settings of a pod that is over": {pod: func(p *corev1.Pod) {
			p.Annotations[annotation.ExcludeOutboundPorts], p.Status.Phase = "x", corev1.PodSucceeded
		}},
		"such settings in the node's network": {pod: func(p *corev1.Pod) {
			p.Annotations[annotation.ExcludeOutboundPorts], p.Spec.HostNetwork = "x", true
		}},
		"such settings of a static pod": {pod: func(p *corev1.Pod) {
			p.Annotations[annotation.ExcludeOutboundPorts], p.Annotations[kube.KeyMirror] = "x", "x"
		}},
	} {
		pod := agenttest.Running("cart")
		if c.pod != nil {
			c.pod(pod)
		}
		b := patrolling(t, pod)
		if c.scene != nil {
			c.scene(b, pod)
		}
		var all []string
		rounds := func(n int) (reasons []string) {
			for range n {
				b.round(t.Context(), time.Now())
			}
			for _, event := range sent(b.events) {
				all = append(all, event)
				reasons = append(reasons, strings.Fields(event)[1])
			}
			return reasons
		}
		if first, later := rounds(1), rounds(2); !slices.Equal(first, c.first) || !slices.Equal(later, c.later) {
			t.Errorf("%s: %q after the first round and %q after the third, want %q and %q", name, first, later, c.first, c.later)
		}
		if !strings.Contains(strings.Join(all, "\n"), c.words) {
			t.Errorf("%s: %q, want %q", name, all, c.words)
		}
		waits := map[bool]float64{true: 1}[kube.WaitsLong(pod, time.Now(), time.Minute)]
		if got := sum(t, b.Metrics.Waiting); got != waits {
			t.Errorf("%s: %g wait for long, want %g", name, got, waits)
		}
		bypasses := map[bool][]string{true: {"shop/cart"}}[c.bypass]
		if distrusted := b.installation.distrusted == 1; !slices.Equal(b.Bypassed(), bypasses) ||
			distrusted != (c.bypass && !c.away) {
			t.Errorf("%s: %q bypass the mesh, want %q; drop-in distrusted: %t", name, b.Bypassed(), bypasses, distrusted)
		}
	}
}

// A pod that was created while the plugin was not chained is deleted only when it is chained again: otherwise its
// successor would bypass the mesh, too.
func TestMadeWhileAway(t *testing.T) {
	pod := agenttest.Running("cart")
	pod.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "cart", Controller: new(true)}}
	b := patrolling(t, pod)
	deletions := 0
	b.Repairer.Mode, b.Repairer.Pods = Delete, deleter(func(string) error { deletions++; return nil })
	for name, c := range map[string]struct {
		since func() time.Time
		want  int
	}{
		"away":                            {func() time.Time { return time.Time{} }, 0},
		"taken out again and again":       {time.Now, 0},
		"back, and this is known as ever": {func() time.Time { return time.Now().Add(-time.Nanosecond) }, 1},
	} {
		deletions = 0
		for range 2 {
			wasAway(b, c.since())
			now := time.Now()
			if name == "taken out again and again" {
				now = b.installation.since // the current time, which is read in the round
			}
			b.round(t.Context(), now)
		}
		if !slices.Equal(b.Bypassed(), []string{"shop/cart"}) || (deletions > 0) != (c.want > 0) {
			t.Errorf("%s: %q, deleted %d times", name, b.Bypassed(), deletions)
		}
	}
}

// A record is removed when its sandbox must be gone: at once after a reboot, otherwise after a while, in which the
// runtime's DEL may come.
func TestSweep(t *testing.T) {
	pod := agenttest.Running("cart")
	another := agenttest.Running("cart")
	another.UID = "another"
	at := func(netns string, age time.Duration, change ...func(*record.Record)) record.Record {
		r := agenttest.RecordFor(pod, netns)
		r.ContainerID, r.Time = "c"+strings.ReplaceAll(netns, "/", "-"), time.Now().Add(-age)
		for _, c := range change {
			c(&r)
		}
		return r
	}
	ofGone := func(r *record.Record) { r.PodUID, r.Name = "uid-of-gone", "gone" }
	for name, c := range map[string]struct {
		records []record.Record
		reader  agenttest.Reader // in addition to the pods in the cache
		now     int              // records left after the first round
		late    int              // records left after a while
	}{
		"of a pod that is there": {[]record.Record{at("1/1", 0)}, nil, 1, 1},
		"of an earlier boot": {[]record.Record{at("1/1", 0, func(r *record.Record) { r.NetNS = "another/1/1" })}, nil,
			0, 0},
		"of an earlier sandbox": {[]record.Record{at("1/1", time.Hour), at("2/2", 0)}, nil, 2, 1},
		"of another interface": {[]record.Record{at("1/1", time.Hour),
			at("2/2", 0, func(r *record.Record) { r.IfName = "eth1" })}, nil, 2, 2},
		"of another network": {[]record.Record{at("1/1", time.Hour),
			at("2/2", 0, func(r *record.Record) { r.Network = "x" })}, nil, 2, 2},
		"of a pod that is gone": {[]record.Record{at("1/1", 0, ofGone)}, nil, 1, 0},
		"of one named as it is now": {[]record.Record{at("1/1", 0, ofGone)},
			func(context.Context, string, string) (*corev1.Pod, error) { return another, nil }, 1, 0},
		"of one that is not cached yet": {[]record.Record{at("1/1", 0, ofGone)},
			func(context.Context, string, string) (*corev1.Pod, error) {
				gone := agenttest.Running("gone")
				return gone, nil
			}, 1, 1},
		"of one nobody can ask about": {[]record.Record{at("1/1", 0, ofGone)},
			func(context.Context, string, string) (*corev1.Pod, error) {
				return nil, errors.New("connection refused")
			}, 1, 1},
	} {
		b := patrolling(t, pod)
		if c.reader != nil {
			b.Reader = c.reader
		}
		for _, r := range c.records {
			await.Must(t, b.Store.Put(r))
			b.records[r.ContainerID] = r
		}
		left := func(after time.Duration) int {
			b.round(t.Context(), time.Now().Add(after))
			records, unreadable := b.Store.List()
			return len(records) + len(unreadable)
		}
		if now, early, late := left(0), left(time.Second), left(time.Hour); now != c.now || early != c.now || late != c.late {
			t.Errorf("%s: %d records at once, %d after a second, %d after a while; want %d, %d, %d", name, now, early, late,
				c.now, c.now, c.late)
		}
	}
}

// Rounds are made until the context ends, and wait until pods, namespaces and records are known.
func TestRun(t *testing.T) {
	pod := agenttest.Running("cart")
	b := patrolling(t, pod)
	ready := make(chan bool)
	b.Every, b.Records = time.Millisecond, readiness{b.records, ready}
	if !b.LastRound().IsZero() || b.Bypassed() != nil {
		t.Error("a patrol that does not run has looked")
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); b.Run(ctx) }()
	look := func(known bool) {
		t.Helper()
		select {
		case ready <- known:
		case <-time.After(time.Minute):
			t.Fatal("the patrol does not ask whether the records are known")
		}
	}
	for range 3 {
		look(false)
	}
	if len(b.Bypassed()) > 0 || b.LastRound().IsZero() {
		t.Error("a verdict without the records")
	}
	for range 4 {
		look(true)
	}
	if want := []string{"shop/cart"}; !slices.Equal(b.Bypassed(), want) {
		t.Errorf("%q bypass the mesh, want %q", b.Bypassed(), want)
	}
	stop()
	for running := true; running; {
		select {
		case ready <- true:
		case <-ended:
			running = false
		}
	}
}

// readiness reports, by a channel, whether the records are known.
type readiness struct {
	Records
	ready <-chan bool
}

func (r readiness) Ready() bool { return <-r.ready }

// Decisions that an operator should know of are reported on the pod, and so is a refused mark.
func TestDecisionsThatAreReported(t *testing.T) {
	pod := agenttest.MeshPod("cart")
	for reason, want := range map[redirect.Reason]string{
		redirect.ReasonNoProxy:      "has no container istio-proxy",
		redirect.ReasonForeignRules: "only one of Istio CNI, istio-init and istio-pod-network",
		redirect.ReasonInjected:     "",
	} {
		w, events := heard()
		r := agenttest.RecordFor(pod, "1/1")
		r.Reason = string(reason)
		w.AboutRecord(pod, r)
		if all := strings.Join(sent(events), "\n"); (all == "") != (want == "") || !strings.Contains(all, want) {
			t.Errorf("%s: %q, want %q", reason, all, want)
		}
	}
	w, events := heard()
	w.AboutRefusedMark(pod, errors.New("too long"))
	expectOne(t, events, eventRefused, "refuses the annotations that mark the pod as initialized: too long")
}

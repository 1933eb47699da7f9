package patrol

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/annotation"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestBypasses(t *testing.T) {
	chained := time.Date(2026, 11, 1, 12, 0, 0, 500_000_000, time.UTC)
	at := func(d time.Duration) *metav1.Time { return &metav1.Time{Time: chained.Truncate(time.Second).Add(d)} }
	p := patrolling(t)
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		want   bool
	}{
		"started after": {func(*corev1.Pod) {}, true},
		// Kubernetes truncates times to seconds: 12:00:00.9 becomes 12:00:00.
		"started in the same second": {func(p *corev1.Pod) { p.Status.StartTime = at(0) }, false},
		"started before":             {func(p *corev1.Pod) { p.Status.StartTime = at(-time.Minute) }, false},
		"another sandbox much later": {func(p *corev1.Pod) {
			p.Status.StartTime, p.Status.Conditions[0].LastTransitionTime = at(-time.Hour), *at(time.Minute)
		}, true},
		"a sandbox reported a little late": {func(p *corev1.Pod) {
			p.Status.StartTime, p.Status.Conditions[0].LastTransitionTime = at(-time.Hour), *at(20 * time.Second)
		}, false},
		"between two sandboxes": {func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }, false},
		"an older Kubernetes":   {func(p *corev1.Pod) { p.Status.Conditions = nil }, true},
		"no network":            {func(p *corev1.Pod) { p.Status.PodIPs = nil }, false},
		"host network":          {func(p *corev1.Pod) { p.Spec.HostNetwork = true }, false},
		"static":                {func(p *corev1.Pod) { p.Annotations[kube.KeyMirror] = "x" }, false},
		"over":                  {func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, false},
		"being deleted":         {func(p *corev1.Pod) { p.DeletionTimestamp = at(0) }, false},
		"not in the mesh":       {func(p *corev1.Pod) { delete(p.Annotations, annotation.SidecarStatus) }, false},
		"excluded namespace":    {func(p *corev1.Pod) { p.Namespace = "kube-system" }, false},
		"unreadable":            {func(p *corev1.Pod) { p.Annotations[annotation.ExcludeOutboundPorts] = "x" }, false},
	} {
		pod := agenttest.MeshPod("cart")
		pod.Status = corev1.PodStatus{
			Phase: corev1.PodRunning, StartTime: at(2 * time.Second), PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionTrue,
				LastTransitionTime: *at(3 * time.Second)}},
		}
		c.change(pod)
		p.cached(t, pod)
		p.cacheRead = false
		if p.chained = chained; (p.judge(pod, &sighting{}) == bypass) != c.want {
			t.Errorf("%s: %t", name, !c.want)
		}
		if p.chained = (time.Time{}); p.judge(pod, &sighting{}) != fine {
			t.Errorf("%s: bypasses what is not chained", name)
		}
	}
}

// Between two sandboxes a pod briefly has no record, and its status does not show it yet: one round is not enough. A
// pod that bypasses the mesh stays known although the plugin is chained again, until it has its rules.
func TestBypassIsCertain(t *testing.T) {
	pod := agenttest.Running("cart")
	p := patrolling(t, pod)
	found := func() int { p.round(t.Context(), time.Now()); return len(p.Bypassed()) }
	if found() != 0 {
		t.Error("a bypass after one look")
	}
	p.records["r"] = agenttest.RecordFor(pod, "1/1")
	found()
	delete(p.records, "r")
	if found() != 0 {
		t.Error("a look before the last record counts")
	}
	for range 2 {
		if found() != 1 {
			t.Error("no bypass after two looks")
		}
	}
	p.installation.since = time.Now().Add(time.Hour)
	if found() != 1 {
		t.Error("forgotten, because the plugin was chained anew")
	}
	p.records["r"] = agenttest.RecordFor(pod, "1/1")
	if found() != 0 {
		t.Error("a pod with rules is no bypass")
	}
}

// If the watch is late, a pod that is gone, or a new one with its name, looks like one that has lost its record. The
// API server is asked before anything is reported, once for each pod, and not again in a round in which it does not
// answer. The request has as much time as the API server may let it wait.
func TestGoneIsNoBypass(t *testing.T) {
	pods := []*corev1.Pod{agenttest.Running("cart"), agenttest.Running("till")}
	p := patrolling(t, pods...)
	reads := 0
	away := agenttest.Reader(func(context.Context, string, string) (*corev1.Pod, error) {
		return nil, errors.New("connection refused")
	})
	over := agenttest.Running("cart")
	over.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	another := agenttest.Running("cart")
	another.UID = "another"
	now := time.Now()
	for name, c := range map[string]struct {
		answer func() (*corev1.Pod, error)
		reads  []int // requests so far, after each round
	}{
		"gone": {func() (*corev1.Pod, error) {
			return nil, agenttest.NotFound("cart")
		}, []int{0, 2, 2, 2}},
		"away":           {func() (*corev1.Pod, error) { return nil, errors.New("connection refused") }, []int{0, 1, 2, 3}},
		"being deleted":  {func() (*corev1.Pod, error) { return over, nil }, []int{0, 2, 2, 2}},
		"another by now": {func() (*corev1.Pod, error) { return another, nil }, []int{0, 2, 2, 2}},
	} {
		p := patrolling(t, pods...)
		reads := 0
		p.Reader = agenttest.Reader(func(ctx context.Context, _, _ string) (*corev1.Pod, error) {
			if reads++; kube.Timeout(ctx) < 15*time.Second { // API priority and fairness may delay it so long
				t.Errorf("%s: a read that takes %v at most", name, kube.Timeout(ctx))
			}
			return c.answer()
		})
		for round, want := range c.reads {
			p.round(t.Context(), now)
			if found := len(p.Bypassed()); found != 0 || reads != want {
				t.Errorf("%s: in round %d %d bypasses, %d reads, want %d", name, round, found, reads, want)
			}
		}
	}
	p.round(t.Context(), now)
	// from before the plugin was chained: it does not bypass the mesh, and would be repaired
	waits := agenttest.Running("waits")
	waits.Status.StartTime, waits.Spec.InitContainers = &metav1.Time{Time: time.Unix(0, 0)},
		[]corev1.Container{{Name: "istio-validation"}}
	early := patrolling(t, waits)
	early.Reader = away
	for range 3 {
		early.round(t.Context(), now)
	}
	if all := sent(early.events); len(all) > 0 {
		t.Errorf("of a pod that may be gone: %v", all)
	}
	reads = 0
	p.Reader = agenttest.Reader(func(_ context.Context, _, name string) (*corev1.Pod, error) {
		reads++
		return p.Pods.Named("shop", name), nil
	})
	for range 3 {
		p.round(t.Context(), now)
	}
	if found := len(p.Bypassed()); found != 2 || reads != 2 {
		t.Errorf("%d bypasses after %d reads", found, reads)
	}
	p.records["r"] = agenttest.RecordFor(pods[0], "1/1")
	p.round(t.Context(), now)
	delete(p.records, "r")
	p.Reader = away
	for range 3 {
		p.round(t.Context(), now)
	}
	if found := len(p.Bypassed()); found != 1 {
		t.Errorf("%d bypasses, one of which may be gone since it was repaired", found)
	}
}

// An API server that does not answer is asked once in a round, not for every record. No record is swept without its
// answer.
func TestSweepWithoutAPIServer(t *testing.T) {
	p := patrolling(t)
	for i := range 50 {
		r := agenttest.RecordFor(agenttest.MeshPod(fmt.Sprint("gone-", i)), fmt.Sprint("1/", i))
		r.ContainerID = fmt.Sprint("c", i)
		if err := p.Store.Put(r); err != nil {
			t.Fatal(err)
		}
		p.records[r.ContainerID] = r
	}
	reads, answer := 0, errors.New("connection refused")
	p.Reader = agenttest.Reader(func(ctx context.Context, _, _ string) (*corev1.Pod, error) {
		if reads++; kube.Timeout(ctx) < 15*time.Second {
			t.Errorf("a read that takes %v at most", kube.Timeout(ctx))
		}
		return nil, answer
	})
	left := func() int { records, _ := p.Store.List(); return len(records) }
	now := time.Now()
	for _, step := range []struct {
		after       time.Duration
		reads, left int
	}{{0, 0, 50}, {30 * time.Second, 0, 50}, {2 * time.Minute, 1, 50}, {3 * time.Minute, 2, 50}} {
		p.round(t.Context(), now.Add(step.after))
		if reads != step.reads || left() != step.left {
			t.Errorf("after %v: %d reads, %d records left; want %d, %d", step.after, reads, left(), step.reads, step.left)
		}
	}
	static := agenttest.StaticPod("static", "hash")
	p.source.Add(static)
	await.Eventually(t, time.Minute, "the static pod is known",
		func() bool { return p.Pods.Named("shop", "static") != nil })
	r := agenttest.RecordFor(static, "1/99")
	r.PodUID, r.ContainerID = "hash", "static"
	if err := p.Store.Put(r); err != nil {
		t.Fatal(err)
	}
	p.records["static"] = r
	answer = agenttest.NotFound("gone")
	for _, after := range []time.Duration{4 * time.Minute, 10 * time.Minute} {
		if p.round(t.Context(), now.Add(after)); left() != 1 {
			t.Errorf("%d records left, want that of the static pod", left())
		}
	}
}

package mark

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/internal/await"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestMarkerFailures(t *testing.T) {
	pods := schema.GroupResource{Resource: "pods"}
	invalid := func(field string) error {
		return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure,
			Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid,
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: metav1.CauseTypeFieldValueInvalid,
				Field: field}}}}}
	}
	for name, c := range map[string]struct {
		err    error
		settle bool
		result Result
	}{
		"gone":        {apierrors.NewNotFound(pods, "cart"), true, PodGone},
		"another":     {apierrors.NewConflict(pods, "cart", errors.New("UID")), true, PodGone},
		"immutable":   {invalid("metadata.uid"), true, PodGone},
		"too long":    {invalid("metadata.annotations"), true, Failed}, // the refusal makes the queue try again later
		"too large":   {apierrors.NewRequestEntityTooLargeError("etcdserver: request is too large"), true, Failed},
		"forbidden":   {apierrors.NewForbidden(pods, "cart", nil), true, Failed},
		"unavailable": {apierrors.NewServiceUnavailable("later"), false, Failed},
		"no answer":   {errors.New("connection refused"), false, Failed},
		"timeout":     {context.DeadlineExceeded, false, Failed},
	} {
		pod := agenttest.MeshPod("cart")
		b := newBench(t, pod, agenttest.RecordFor(pod, "1/1"))
		b.fail = func(int) error { return c.err }
		if got := b.reconcile(t.Context(), string(pod.UID)); got != c.settle {
			t.Errorf("%s: settled is %t", name, got)
		}
		b.expect(t, 1, c.result)
	}
}

// A refusal stops attempts for a while, from a second to minutes, however often the pod changes meanwhile. Another mark
// is tried at once.
func TestMarkerRefused(t *testing.T) {
	pod := agenttest.MeshPod("cart")
	b := newBench(t, pod, agenttest.RecordFor(pod, "1/1"))
	id, refused := string(pod.UID), apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "cart", nil)
	b.fail = func(int) error { return refused }
	var results []Result
	for i, want := range []time.Duration{time.Second, 4 * time.Second, 16 * time.Second, 64 * time.Second,
		256 * time.Second, 5 * time.Minute, 5 * time.Minute} {
		before := time.Now()
		reconcile := func() {
			if !b.reconcile(t.Context(), id) {
				t.Error("to be tried again at once")
			}
		}
		reconcile()
		results = append(results, Failed)
		last := b.refusal(id, pod.UID, markOf(agenttest.RecordFor(pod, "1/1")))
		if last.pause != want || last.until.Before(before.Add(want)) {
			t.Errorf("refusal %d: a pause of %v until %v, want %v after %v", i, last.pause, last.until, want, before)
		}
		last.until = before.Add(time.Hour)
		b.refused.Store(id, last)
		reconcile()
		b.expect(t, len(results), results...)
		if last = b.refusal(id, "uid-of-another", markOf(agenttest.RecordFor(pod, "1/1"))); last.pause != 0 {
			t.Errorf("another pod of that name pauses for %v", last.pause)
		}
		last = b.refusal(id, pod.UID, markOf(agenttest.RecordFor(pod, "1/1")))
		last.until = before
		b.refused.Store(id, last)
	}
	last := b.refusal(id, pod.UID, markOf(agenttest.RecordFor(pod, "1/1")))
	last.until = time.Now().Add(time.Hour)
	b.refused.Store(id, last)
	b.records.replace("later", &recordFile{record: agenttest.RecordFor(pod, "2/2")})
	b.fail = nil
	b.reconcile(t.Context(), id)
	results = append(results, Marked)
	b.expect(t, len(results), results...)
	b.reconcile(t.Context(), id)
	if _, still := b.refused.Load(id); still {
		t.Error("a mark that was taken is remembered as refused")
	}
	b.refused.Store(id, last)
	b.records.replace("0", nil)
	b.records.replace("later", nil)
	b.reconcile(t.Context(), id)
	if _, still := b.refused.Load(id); still {
		t.Error("a pod without a record is remembered as refused")
	}
}

// A pod with another pod's UID as its annotated hash does not get that pod's mark, even if it looks like a mirror pod.
// It does not keep the other pod from being marked either.
func TestMarkerStolenHash(t *testing.T) {
	victim := agenttest.MeshPod("victim")
	thieves := []*corev1.Pod{agenttest.MeshPod("a-thief"), agenttest.StaticPod("thief", string(victim.UID))}
	thieves[0].Annotations[kube.KeyConfigHash] = string(victim.UID)
	for name, watched := range map[string][]*corev1.Pod{"both": append(thieves, victim), "the thieves": thieves} {
		r := agenttest.RecordFor(victim, "1/1")
		r.Time = time.Now().Add(-watchLate)
		b := benchWith(t, watched, victim, r)
		b.Reader = func(context.Context, string, string) (*corev1.Pod, error) { return victim, nil }
		for range 20 { // the cache's order is random
			if got := b.pods.WithID(string(victim.UID)); len(watched) == 3 && got.Name != victim.Name {
				t.Errorf("with %s in the cache, the UID of %s is that of %s", name, victim.Name, got.Name)
			}
		}
		b.reconcile(t.Context(), string(victim.UID))
		b.expect(t, 1, Marked)
	}
}

// The workers try again until the mark is written, also after a refusal, although the pod does not change.
func TestMarkerRetries(t *testing.T) {
	refused := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "cart", nil)
	for _, errs := range [][]error{
		{errors.New("connection refused"), errors.New("connection refused"), errors.New("connection refused")}, {refused},
	} {
		pod := agenttest.MeshPod("cart")
		b := newBench(t, pod, agenttest.RecordFor(pod, "1/1"))
		var want []Result
		b.fail = func(attempt int) error {
			if attempt <= len(errs) {
				return errs[attempt-1]
			}
			return nil
		}
		for range errs {
			want = append(want, Failed)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { b.Run(ctx); close(done) }()
		b.queue.Add(string(pod.UID))
		await.Eventually(t, time.Minute, "the pod is marked",
			func() bool { _, written := b.MarkedSince(string(pod.UID)); return written })
		cancel()
		<-done
		b.expect(t, len(errs)+1, append(want, Marked)...)
	}
}

// The marker waits for an API server that takes 25 s for a mark. With a shorter limit it would never get one, and the
// API server would work on requests that nobody waits for.
func TestMarkerIsPatient(t *testing.T) {
	const needed = 25 * time.Second
	pod := agenttest.MeshPod("cart")
	b := newBench(t, pod, agenttest.RecordFor(pod, "1/1"))
	b.slow = func(ctx context.Context) error {
		if kube.Timeout(ctx) < needed {
			return context.DeadlineExceeded
		}
		return nil
	}
	id := string(pod.UID)
	b.queue.Add(id)
	b.next(t.Context())
	if _, written := b.MarkedSince(id); !written {
		t.Errorf("not marked by a request that takes %v", needed)
	}
}

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/plugin/record"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	source "k8s.io/client-go/tools/cache/testing"
)

// bench is a marker between a pod cache and an API server that are both in memory.
type bench struct {
	*marker
	source *source.FakeControllerSource
	fail   func(attempt int) error // what a patch fails with
	lose   bool                    // the patch is applied, but its answer is lost
	silent bool                    // the watch does not bring what was patched

	mu      sync.Mutex
	patches []string
	results []string
	pod     *corev1.Pod
}

func newBench(t *testing.T, pod *corev1.Pod, records ...record.Record) *bench {
	b := &bench{marker: newMarker(testBoot, quiet()), pod: pod.DeepCopy()}
	b.records = &recordIndex{log: quiet(), files: map[string]recordFile{}}
	for i, r := range records {
		b.records.files[fmt.Sprint(i)] = recordFile{record: r}
	}
	b.pods, b.source = cached(t, func(string) {}, pod)
	b.patch = b.apply
	b.done = func(_ record.Record, result string, _ error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.results = append(b.results, result)
	}
	return b
}

// apply is the API server.
func (b *bench) apply(_ context.Context, _, _ string, patch []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.patches = append(b.patches, string(patch))
	if b.fail != nil {
		if err := b.fail(len(b.patches)); err != nil {
			return err
		}
	}
	var decoded struct {
		Metadata struct {
			UID         string
			Annotations map[string]*string
		}
	}
	if err := json.Unmarshal(patch, &decoded); err != nil {
		return err
	}
	if decoded.Metadata.UID != string(b.pod.UID) {
		return apierrors.NewConflict(schema.GroupResource{Resource: "pods"}, b.pod.Name, errors.New("another UID"))
	}
	b.pod = b.pod.DeepCopy()
	for key, value := range decoded.Metadata.Annotations {
		if value == nil {
			delete(b.pod.Annotations, key)
		} else {
			b.pod.Annotations[key] = *value
		}
	}
	if !b.silent {
		b.source.Modify(b.pod.DeepCopy())
	}
	if b.lose {
		return errors.New("connection reset")
	}
	return nil
}

func (b *bench) expect(t *testing.T, patches int, results ...string) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.patches) != patches || strings.Join(b.results, " ") != strings.Join(results, " ") {
		t.Errorf("%d patches with results %q, want %d with %q", len(b.patches), b.results, patches, results)
	}
}

func TestMarkerWritesOnce(t *testing.T) {
	pod := meshPod("cart")
	for _, silent := range []bool{false, true} {
		b := newBench(t, pod, recordFor(pod, "1/1"))
		b.silent = silent // the watch is late, and the pod in the cache still without a mark
		for range 5 {
			if !b.reconcile(t.Context(), string(pod.UID)) {
				t.Error("to be tried again")
			}
		}
		b.expect(t, 1, marked)
	}
}

// A request whose answer is lost is not repeated once the watch has brought what it did.
func TestMarkerAmbiguous(t *testing.T) {
	pod := meshPod("cart")
	b := newBench(t, pod, recordFor(pod, "1/1"))
	b.lose = true
	if b.reconcile(t.Context(), string(pod.UID)) {
		t.Error("a failure is not tried again")
	}
	eventually(t, "the mark is in the cache", func() bool { return b.pods.named("shop", "cart").Annotations[record.KeyStatus] != "" })
	if !b.reconcile(t.Context(), string(pod.UID)) {
		t.Error("to be tried again")
	}
	b.expect(t, 1, markFailure, alreadyOn)
}

func TestMarkerFailures(t *testing.T) {
	pods := schema.GroupResource{Resource: "pods"}
	invalid := func(field string) error {
		return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid,
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: metav1.CauseTypeFieldValueInvalid, Field: field}}}}}
	}
	for name, c := range map[string]struct {
		err    error
		settle bool
		result string
	}{
		"gone":        {apierrors.NewNotFound(pods, "cart"), true, markGone},
		"another":     {apierrors.NewConflict(pods, "cart", errors.New("UID")), true, markGone},
		"immutable":   {invalid("metadata.uid"), true, markGone},
		"too long":    {invalid("metadata.annotations"), false, markFailure},
		"forbidden":   {apierrors.NewForbidden(pods, "cart", nil), false, markFailure},
		"unavailable": {apierrors.NewServiceUnavailable("later"), false, markFailure},
		"no answer":   {errors.New("connection refused"), false, markFailure},
		"timeout":     {context.DeadlineExceeded, false, markFailure},
	} {
		pod := meshPod("cart")
		b := newBench(t, pod, recordFor(pod, "1/1"))
		b.fail = func(int) error { return c.err }
		if got := b.reconcile(t.Context(), string(pod.UID)); got != c.settle {
			t.Errorf("%s: settled is %t", name, got)
		}
		b.expect(t, 1, c.result)
	}
}

// The workers try again until it works.
func TestMarkerRetries(t *testing.T) {
	pod := meshPod("cart")
	b := newBench(t, pod, recordFor(pod, "1/1"))
	b.fail = func(attempt int) error {
		if attempt < 4 {
			return errors.New("connection refused")
		}
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { b.run(ctx); close(done) }()
	b.enqueue(string(pod.UID))
	eventually(t, "the pod is marked", func() bool { _, written := b.markedSince(string(pod.UID)); return written })
	cancel()
	<-done
	b.expect(t, 4, markFailure, markFailure, markFailure, marked)
}

// A mark that somebody takes away comes back, but not as often as he likes.
func TestMarkerTakenAway(t *testing.T) {
	pod := meshPod("cart")
	b := newBench(t, pod, recordFor(pod, "1/1"))
	id := string(pod.UID)
	b.reconcile(t.Context(), id)
	b.source.Modify(pod)
	eventually(t, "the mark is gone from the cache", func() bool { return !markOf(recordFor(pod, "1/1")).isOn(b.pods.named("shop", "cart")) })
	b.reconcile(t.Context(), id)
	b.expect(t, 1, marked)
	b.marker.mu.Lock()
	w := b.written[id]
	w.at = w.at.Add(-remarkAfter)
	b.written[id] = w
	b.marker.mu.Unlock()
	b.reconcile(t.Context(), id)
	b.expect(t, 2, marked, marked)
}

func TestMarkerLeavesAlone(t *testing.T) {
	mirror, over, ending := meshPod("mirror"), meshPod("over"), meshPod("ending")
	mirror.Annotations[keyMirror] = "hash"
	over.Status.Phase = corev1.PodFailed
	ending.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	for _, pod := range []*corev1.Pod{mirror, over, ending} {
		b := newBench(t, pod, recordFor(pod, "1/1"))
		b.reconcile(t.Context(), string(pod.UID))
		b.expect(t, 0)
	}
	pod := meshPod("unrecorded")
	b := newBench(t, pod, recordFor(meshPod("other"), "1/1"))
	b.reconcile(t.Context(), string(pod.UID))
	b.reconcile(t.Context(), "uid-of-other") // whose pod is not there
	b.expect(t, 0)
}

func TestCurrentRecord(t *testing.T) {
	pod := meshPod("cart")
	at := func(seconds int, netns string, change ...func(*record.Record)) record.Record {
		r := recordFor(pod, netns)
		r.Time = time.Unix(int64(1000+seconds), 0)
		for _, c := range change {
			c(&r)
		}
		return r
	}
	untouched := func(r *record.Record) { r.Decision, r.Reason = record.Untouched, "mode-none" }
	otherBoot := func(r *record.Record) { r.NetNS = "another/1/1" }
	for name, c := range map[string]struct {
		records []record.Record
		want    mark
	}{
		"none":             {nil, mark{}},
		"one":              {[]record.Record{at(0, "1/1")}, mark{"initialized", "5e7c1c9d-boot/1/1", ""}},
		"untouched":        {[]record.Record{at(0, "1/1", untouched)}, mark{"not-required", "5e7c1c9d-boot/1/1", "mode-none"}},
		"latest":           {[]record.Record{at(2, "2/2"), at(1, "1/1"), at(0, "3/3")}, mark{"initialized", "5e7c1c9d-boot/2/2", ""}},
		"latest untouched": {[]record.Record{at(1, "1/1"), at(2, "2/2", untouched)}, mark{"not-required", "5e7c1c9d-boot/2/2", "mode-none"}},
		"both in one":      {[]record.Record{at(1, "1/1"), at(2, "1/1", untouched)}, mark{"initialized", "5e7c1c9d-boot/1/1", ""}},
		"both, reversed":   {[]record.Record{at(1, "1/1", untouched), at(0, "1/1")}, mark{"initialized", "5e7c1c9d-boot/1/1", ""}},
		"of another boot":  {[]record.Record{at(9, "1/1", otherBoot), at(0, "2/2")}, mark{"initialized", "5e7c1c9d-boot/2/2", ""}},
		"of another alone": {[]record.Record{at(9, "1/1", otherBoot)}, mark{}},
	} {
		r, found := testBoot.current(c.records)
		if got := markOf(r); found != (c.want != mark{}) || found && got != c.want {
			t.Errorf("%s: %v %t, want %v", name, got, found, c.want)
		}
	}
}

// A pod that the watch does not bring is read from the API server after a while, so that its wait does not last as long as the watch is away.
func TestMarkerWithoutWatch(t *testing.T) {
	pod := meshPod("cart")
	another, mirror := meshPod("cart"), meshPod("cart")
	another.UID, mirror.Annotations[keyMirror] = "another", "x"
	for name, c := range map[string]struct {
		age     time.Duration
		live    *corev1.Pod
		err     error
		reads   int
		settle  bool
		results []string
	}{
		"a young record":         {0, pod, nil, 0, true, nil},
		"an older one":           {watchLate, pod, nil, 1, true, []string{marked}},
		"one of the future":      {-time.Hour, pod, nil, 1, true, []string{marked}},
		"the pod is gone":        {watchLate, nil, apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, "cart"), 1, true, nil},
		"another of its name":    {watchLate, another, nil, 1, true, nil},
		"a static pod":           {watchLate, mirror, nil, 1, true, nil},
		"the API server is away": {watchLate, nil, errors.New("connection refused"), 1, false, nil},
	} {
		r := recordFor(pod, "1/1")
		r.Time = time.Now().Add(-c.age)
		b := newBench(t, pod, r)
		b.pods, _ = cached(t, func(string) {})
		reads := 0
		b.read = func(context.Context, string, string) (*corev1.Pod, error) { reads++; return c.live, c.err }
		if settled := b.reconcile(t.Context(), string(pod.UID)); settled != c.settle || reads != c.reads {
			t.Errorf("%s: settled %t, %d reads", name, settled, reads)
		}
		b.expect(t, len(c.results), c.results...)
	}
}

package mark

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/fdleak"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	source "k8s.io/client-go/tools/cache/testing"
)

func TestMain(m *testing.M) { os.Exit(fdleak.Run(m)) }

// bench is a marker between a pod cache and an API server, both in memory.
type bench struct {
	*Marker
	agenttest.Reader
	source *source.FakeControllerSource
	fail   func(attempt int) error // the error of a patch
	slow   func(ctx context.Context) error
	lose   error // the error of a patch that is applied all the same
	silent bool  // the watch does not bring patches

	mu      sync.Mutex
	reads   int // number of reads by the default Reader
	patches []string
	results []Result
	pod     *corev1.Pod
}

// newBench has the pod in its API server and in its cache.
func newBench(t *testing.T, pod *corev1.Pod, records ...record.Record) *bench {
	return benchWith(t, []*corev1.Pod{pod}, pod, records...)
}

func benchWith(t *testing.T, watched []*corev1.Pod, pod *corev1.Pod, records ...record.Record) *bench {
	b := &bench{pod: pod.DeepCopy()}
	b.Reader = func(context.Context, string, string) (*corev1.Pod, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.reads++
		return b.pod, nil
	}
	index := NewIndex(record.Store{Dir: t.TempDir()}, agenttest.Quiet(), nil, nil)
	for i, r := range records {
		index.replace(fmt.Sprint(i), &recordFile{record: r})
	}
	pods, from := agenttest.Pods(t, func(string) {}, watched...)
	b.source = from
	b.Marker = New(agenttest.Boot, NewQueue(), pods, index, b, func(_ record.Record, result Result, _ error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.results = append(b.results, result)
	})
	return b
}

// PatchPod is the API server's part.
func (b *bench) PatchPod(ctx context.Context, _, _ string, patch []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.patches = append(b.patches, string(patch))
	if b.slow != nil {
		if err := b.slow(ctx); err != nil {
			return err
		}
	}
	if b.fail != nil {
		if err := b.fail(len(b.patches)); err != nil {
			return err
		}
	}
	patched, err := patchedBy(patch, b.pod)
	if err != nil {
		return err
	}
	b.pod = patched
	if !b.silent {
		b.source.Modify(b.pod.DeepCopy())
	}
	return b.lose
}

// patchedBy returns the pod after the patch.
func patchedBy(patch []byte, pod *corev1.Pod) (*corev1.Pod, error) {
	var decoded struct {
		Metadata struct {
			UID         string
			Annotations map[string]*string
		}
	}
	if err := json.Unmarshal(patch, &decoded); err != nil {
		return nil, err
	}
	if decoded.Metadata.UID != string(pod.UID) {
		return nil, apierrors.NewConflict(schema.GroupResource{Resource: "pods"}, pod.Name, errors.New("another UID"))
	}
	pod = pod.DeepCopy()
	for key, value := range decoded.Metadata.Annotations {
		if value == nil {
			delete(pod.Annotations, key)
		} else {
			pod.Annotations[key] = *value
		}
	}
	return pod, nil
}

func (b *bench) expect(t *testing.T, patches int, results ...Result) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.patches) != patches || !slices.Equal(b.results, results) {
		t.Errorf("%d patches with results %q, want %d with %q", len(b.patches), b.results, patches, results)
	}
}

func TestMarkerWritesOnce(t *testing.T) {
	pod := agenttest.MeshPod("cart")
	for _, silent := range []bool{false, true} {
		b := newBench(t, pod, agenttest.RecordFor(pod, "1/1"))
		b.silent = silent // whether the cache still has the pod without its mark
		for range 5 {
			if !b.reconcile(t.Context(), string(pod.UID)) {
				t.Error("to be tried again")
			}
		}
		b.expect(t, 1, Marked)
	}
}

// A request whose answer was lost is not repeated once the watch has brought its effect.
func TestMarkerAmbiguous(t *testing.T) {
	pod := agenttest.MeshPod("cart")
	b := newBench(t, pod, agenttest.RecordFor(pod, "1/1"))
	b.lose = errors.New("connection reset")
	if b.reconcile(t.Context(), string(pod.UID)) {
		t.Error("a failure is not tried again")
	}
	await.Eventually(t, time.Minute, "the mark is in the cache",
		func() bool { return b.pods.Named("shop", "cart").Annotations[annotation.Status] != "" })
	if !b.reconcile(t.Context(), string(pod.UID)) {
		t.Error("to be tried again")
	}
	b.expect(t, 1, Failed, AlreadyOn)
	if b.reads > 0 {
		t.Errorf("the pod was read %d times, though the watch has brought it", b.reads)
	}
}

// If the watch is late, too, the pod is read before it is patched again, once after each answer that may be lost. If
// the answer says that nothing was done, the pod is not read.
func TestMarkerAnswerLost(t *testing.T) {
	for name, c := range map[string]struct {
		err     error // of the first attempt
		done    bool  // it was done although it failed
		reads   int
		patches int
		last    Result
	}{
		"done":           {context.DeadlineExceeded, true, 1, 1, AlreadyOn},
		"not done":       {context.DeadlineExceeded, false, 1, 2, Marked},
		"cut off":        {errors.New("connection reset"), true, 1, 1, AlreadyOn},
		"server's limit": {apierrors.NewTimeoutError("slow", 0), true, 1, 1, AlreadyOn},
		"rejected":       {apierrors.NewTooManyRequests("later", 1), false, 0, 2, Marked},
		"unavailable":    {apierrors.NewServiceUnavailable("later"), false, 0, 2, Marked},
	} {
		pod := agenttest.MeshPod("cart")
		b := newBench(t, pod, agenttest.RecordFor(pod, "1/1"))
		b.silent = true
		b.fail = func(attempt int) error {
			if attempt == 1 && !c.done {
				return c.err
			}
			return nil
		}
		if c.done {
			b.lose = c.err
		}
		if b.reconcile(t.Context(), string(pod.UID)) {
			t.Errorf("%s: not tried again", name)
		}
		b.lose = nil
		for range 2 {
			if !b.reconcile(t.Context(), string(pod.UID)) {
				t.Errorf("%s: to be tried again", name)
			}
		}
		if b.expect(t, c.patches, Failed, c.last); b.reads != c.reads {
			t.Errorf("%s: %d reads, want %d", name, b.reads, c.reads)
		}
	}
}

// A mark that somebody removes is written again, but not more often than once in remarkAfter.
func TestMarkerTakenAway(t *testing.T) {
	pod := agenttest.MeshPod("cart")
	b := newBench(t, pod, agenttest.RecordFor(pod, "1/1"))
	id := string(pod.UID)
	inCache := func() bool { return markOf(agenttest.RecordFor(pod, "1/1")).isOn(b.pods.Named("shop", "cart")) }
	b.reconcile(t.Context(), id)
	await.Eventually(t, time.Minute, "the mark is in the cache", inCache)
	b.pod = pod.DeepCopy()
	b.source.Modify(pod)
	await.Eventually(t, time.Minute, "the mark is gone from the cache", func() bool { return !inCache() })
	w, _ := b.last(id)
	w.at = time.Now() // the waits may have taken long
	b.written.Store(id, w)
	b.reconcile(t.Context(), id)
	b.expect(t, 1, Marked)
	w, _ = b.last(id)
	w.at = w.at.Add(-remarkAfter)
	b.written.Store(id, w)
	b.reconcile(t.Context(), id)
	b.expect(t, 2, Marked, Marked)
}

// While the watch may be late, the pod is read before it is marked again.
func TestMarkerWatchLate(t *testing.T) {
	pod := agenttest.MeshPod("cart")
	b := newBench(t, pod, agenttest.RecordFor(pod, "1/1"))
	b.silent = true
	id := string(pod.UID)
	b.reconcile(t.Context(), id)
	for reads := range 3 {
		if b.expect(t, 1, Marked); b.reads != reads {
			t.Errorf("%d reads, want %d", b.reads, reads)
		}
		w, _ := b.last(id)
		w.at = w.at.Add(-remarkAfter)
		b.written.Store(id, w)
		if !b.reconcile(t.Context(), id) || !b.Wrote(id) {
			t.Errorf("after %d reads: wrote it: %t", reads, b.Wrote(id))
		}
	}
}

func TestMarkerLeavesAlone(t *testing.T) {
	mirror, over, ending := agenttest.MeshPod("mirror"), agenttest.MeshPod("over"), agenttest.MeshPod("ending")
	mirror.Annotations[kube.KeyMirror] = "hash"
	over.Status.Phase = corev1.PodFailed
	ending.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	for _, pod := range []*corev1.Pod{mirror, over, ending} {
		b := newBench(t, pod, agenttest.RecordFor(pod, "1/1"))
		b.reconcile(t.Context(), string(pod.UID))
		b.expect(t, 0)
	}
	pod := agenttest.MeshPod("unrecorded")
	b := newBench(t, pod, agenttest.RecordFor(agenttest.MeshPod("other"), "1/1"))
	b.reconcile(t.Context(), string(pod.UID))
	b.reconcile(t.Context(), "uid-of-other") // this pod does not exist
	b.expect(t, 0)
}

func TestCurrentRecord(t *testing.T) {
	pod := agenttest.MeshPod("cart")
	at := func(seconds int, netns string, change ...func(*record.Record)) record.Record {
		r := agenttest.RecordFor(pod, netns)
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
		"none": {nil, mark{}},
		"one":  {[]record.Record{at(0, "1/1")}, mark{"initialized", "5e7c1c9d-boot/1/1", "injected", ""}},
		"untouched": {[]record.Record{at(0, "1/1", untouched)},
			mark{"not-required", "5e7c1c9d-boot/1/1", "mode-none", ""}},
		"latest": {[]record.Record{at(2, "2/2"), at(1, "1/1"), at(0, "3/3")},
			mark{"initialized", "5e7c1c9d-boot/2/2", "injected", ""}},
		"latest untouched": {[]record.Record{at(1, "1/1"), at(2, "2/2", untouched)},
			mark{"not-required", "5e7c1c9d-boot/2/2", "mode-none", ""}},
		"both in one": {[]record.Record{at(1, "1/1"), at(2, "1/1", untouched)},
			mark{"initialized", "5e7c1c9d-boot/1/1", "injected", ""}},
		"both, reversed": {[]record.Record{at(1, "1/1", untouched), at(0, "1/1")},
			mark{"initialized", "5e7c1c9d-boot/1/1", "injected", ""}},
		"of another boot": {[]record.Record{at(9, "1/1", otherBoot), at(0, "2/2")},
			mark{"initialized", "5e7c1c9d-boot/2/2", "injected", ""}},
		"of another alone": {[]record.Record{at(9, "1/1", otherBoot)}, mark{}},
	} {
		r, found := Current(agenttest.Boot, c.records)
		if got := markOf(r); found != (c.want != mark{}) || found && got != c.want {
			t.Errorf("%s: %v %t, want %v", name, got, found, c.want)
		}
	}
}

// A pod that the watch does not bring is read from the API server after a while, so that its init wait does not last
// until the watch is back.
func TestMarkerWithoutWatch(t *testing.T) {
	pod := agenttest.MeshPod("cart")
	another, mirror := agenttest.MeshPod("cart"), agenttest.MeshPod("cart")
	another.UID, mirror.Annotations[kube.KeyMirror] = "another", "x"
	for name, c := range map[string]struct {
		age     time.Duration
		live    *corev1.Pod
		err     error
		reads   int
		settle  bool
		results []Result
	}{
		"a young record":         {0, pod, nil, 0, true, nil},
		"an older one":           {watchLate, pod, nil, 1, true, []Result{Marked}},
		"one of the future":      {-time.Hour, pod, nil, 1, true, []Result{Marked}},
		"the pod is gone":        {watchLate, nil, agenttest.NotFound("cart"), 1, true, nil},
		"another of its name":    {watchLate, another, nil, 1, true, nil},
		"a static pod":           {watchLate, mirror, nil, 1, true, nil},
		"the API server is away": {watchLate, nil, errors.New("connection refused"), 1, false, nil},
	} {
		b := benchWith(t, nil, pod)
		reads := 0
		b.Reader = func(context.Context, string, string) (*corev1.Pod, error) { reads++; return c.live, c.err }
		r := agenttest.RecordFor(pod, "1/1")
		r.Time = time.Now().Add(-c.age) // only now: the young one must not become old meanwhile
		b.records.replace("0", &recordFile{record: r})
		if settled := b.reconcile(t.Context(), string(pod.UID)); settled != c.settle || reads != c.reads {
			t.Errorf("%s: settled %t, %d reads", name, settled, reads)
		}
		b.expect(t, len(c.results), c.results...)
	}
}

// An agent that starts does not read the pods of its first list one by one, unless the list does not come.
func TestMarkerBeforeTheList(t *testing.T) {
	pod := agenttest.MeshPod("cart")
	r := agenttest.RecordFor(pod, "1/1")
	r.Time = time.Now().Add(-time.Hour)
	b := newBench(t, pod, r)
	unlisted, err := kube.NewPods(source.NewFakeControllerSource(), redirect.DefaultSpec().ProxyGID, func(string) {})
	await.Must(t, err)
	b.pods = unlisted
	reads := 0
	b.Reader = func(context.Context, string, string) (*corev1.Pod, error) { reads++; return pod, nil }
	if !b.reconcile(t.Context(), string(pod.UID)) || reads > 0 {
		t.Errorf("%d reads of the pod before the first list", reads)
	}
	b.expect(t, 0)
	b.alone = time.Now()
	if !b.reconcile(t.Context(), string(pod.UID)) || reads != 1 {
		t.Errorf("%d reads of the pod when the list does not come", reads)
	}
	b.expect(t, 1, Marked)
}

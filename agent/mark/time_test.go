package mark

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	source "k8s.io/client-go/tools/cache/testing"
)

// clocked is a marker with running workers, beside an API server that has one pod and takes time. It runs in a synctest
// bubble, where time passes at once.
type clocked struct {
	*Marker
	source *source.FakeControllerSource
	late   time.Duration // after this time the watch brings a change
	begins time.Duration // after this time the watch begins

	// answer returns the result of a patch. It may call apply, which applies the patch. If it is nil, patches succeed at
	// once.
	answer func(ctx context.Context, attempt int, apply func()) error
	fails  func(attempt int) error // the error of a read

	mu      sync.Mutex
	start   time.Time
	pod     *corev1.Pod
	patches []time.Duration // times of the patches since the start
	reads   []time.Duration
}

// run starts the marker beside one pod with a record of that age, and calls check while it runs.
func (c *clocked) run(t *testing.T, age time.Duration, check func(t *testing.T, id string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c.pod, c.start, c.source = agenttest.MeshPod("cart"), time.Now(), source.NewFakeControllerSource()
		c.source.Add(c.pod.DeepCopy())
		index := NewIndex(record.Store{}, agenttest.Quiet(), nil, nil)
		r := agenttest.RecordFor(c.pod, "1/1")
		r.Time = c.start.Add(-age)
		index.replace("1", &recordFile{record: r})
		queue := NewQueue()
		pods, err := kube.NewPods(c.source, redirect.DefaultSpec().ProxyGID, queue.Add)
		await.Must(t, err)
		c.Marker = New(agenttest.Boot, queue, pods, index, c, func(record.Record, Result, error) {})
		ctx, stop := context.WithCancel(t.Context())
		var parts sync.WaitGroup
		parts.Go(func() {
			select {
			case <-time.After(c.begins):
				pods.Run(ctx)
			case <-ctx.Done():
			}
		})
		parts.Go(func() { c.Run(ctx) })
		id := string(c.pod.UID)
		queue.Add(id)
		check(t, id)
		stop()
		parts.Wait()
		time.Sleep(time.Hour) // for what the API server still has to do and to send
		c.source.Shutdown()
	})
}

// Pod reads the pod as the API server has it.
func (c *clocked) Pod(context.Context, string, string) (*corev1.Pod, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads = append(c.reads, time.Since(c.start))
	if c.fails != nil {
		if err := c.fails(len(c.reads)); err != nil {
			return nil, err
		}
	}
	return c.pod, nil
}

// PatchPod patches the pod, and the watch brings it.
func (c *clocked) PatchPod(ctx context.Context, _, _ string, patch []byte) error {
	c.mu.Lock()
	c.patches = append(c.patches, time.Since(c.start))
	attempt := len(c.patches)
	c.mu.Unlock()
	apply := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		patched, err := patchedBy(patch, c.pod)
		if err != nil {
			panic(err) // the only pod has this name and UID
		}
		c.pod = patched
		time.AfterFunc(c.late, func() { c.source.Modify(patched.DeepCopy()) })
	}
	if c.answer != nil {
		return c.answer(ctx, attempt, apply)
	}
	apply()
	return nil
}

// came returns the times of the patches and of the reads so far.
func (c *clocked) came() (patches, reads []time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.patches), slices.Clone(c.reads)
}

// has reports whether the pod has the mark of that network namespace.
func (c *clocked) has(netns string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return markOf(agenttest.RecordFor(c.pod, netns)).isOn(c.pod)
}

// replace gives the pod a new sandbox.
func (c *clocked) replace(id, netns string) {
	r := agenttest.RecordFor(c.pod, netns)
	c.records.replace("1", &recordFile{record: r})
	c.queue.Add(id)
}

// However often somebody changes the pod while the watch is away, its mark is written once, and the pod is read rarely.
func TestMarkIsWrittenOnceWithoutWatch(t *testing.T) {
	c := &clocked{late: 2 * time.Minute}
	c.run(t, 0, func(t *testing.T, id string) {
		for range 120 {
			time.Sleep(time.Second)
			c.queue.Add(id)
		}
		time.Sleep(time.Minute)
		patches, reads := c.came()
		if len(patches) != 1 || len(reads) == 0 || len(reads) > int(c.late/remarkAfter) || !c.has("1/1") {
			t.Errorf("patches after %v, reads after %v", patches, reads)
		}
	})
}

// An agent that starts reads no pod if its list comes within listLate. Otherwise it reads them after that, spread.
func TestMarkerAwaitsItsFirstList(t *testing.T) {
	for begins, alone := range map[time.Duration]bool{listLate - time.Second: false, time.Hour: true} {
		c := &clocked{begins: begins}
		c.run(t, time.Hour, func(t *testing.T, _ string) {
			time.Sleep(listLate - time.Millisecond)
			if patches, reads := c.came(); len(reads) > 0 || len(patches) > 0 != !alone {
				t.Errorf("list after %v: before its time patches after %v, reads after %v", begins, patches, reads)
			}
			time.Sleep(listLate)
			patches, reads := c.came()
			if len(patches) != 1 || len(reads) > 0 != alone || !c.has("1/1") {
				t.Errorf("list after %v: patches after %v, reads after %v", begins, patches, reads)
			}
		})
	}
}

// A sandbox that is made while the mark of the old one is being written gets its own mark, whatever happens to the old
// one, even if a slow API server writes the old mark last.
func TestMarkOfASandboxMadeAgain(t *testing.T) {
	for name, c := range map[string]struct {
		answer  func(ctx context.Context, attempt int, apply func()) error
		patches int
		first   time.Duration // how long the first patch takes; the second one starts after it
	}{
		"slow": {func(_ context.Context, attempt int, apply func()) error {
			if attempt == 1 {
				time.Sleep(5 * time.Second)
			}
			apply()
			return nil
		}, 2, 5 * time.Second},
		"answer lost": {func(_ context.Context, attempt int, apply func()) error {
			apply()
			if attempt == 1 {
				time.Sleep(5 * time.Second)
				return context.DeadlineExceeded
			}
			return nil
		}, 2, 5 * time.Second},
		"done last": {func(ctx context.Context, attempt int, apply func()) error {
			if attempt == 1 {
				time.AfterFunc(45*time.Second, apply)
				time.Sleep(kube.Timeout(ctx))
				return context.DeadlineExceeded
			}
			apply()
			return nil
		}, 3, 30 * time.Second},
	} {
		m := &clocked{answer: c.answer}
		m.run(t, 0, func(t *testing.T, id string) {
			time.Sleep(2 * time.Second)
			m.replace(id, "2/2")
			time.Sleep(2 * time.Minute)
			patches, reads := m.came()
			if len(patches) != c.patches || patches[1] > c.first+time.Second || !m.has("2/2") {
				t.Errorf("%s: patches after %v, reads after %v, mark of the new one: %t", name, patches, reads, m.has("2/2"))
			}
		})
	}
}

// The marker respects Retry-After, however often the pod changes, and not all agents ask again at that moment.
func TestMarkerHeedsRetryAfter(t *testing.T) {
	const seconds = 7
	busy := func(attempt int) error {
		if attempt == 1 {
			return apierrors.NewTooManyRequests("later", seconds)
		}
		return nil
	}
	for name, c := range map[string]*clocked{
		"patch": {answer: func(_ context.Context, attempt int, apply func()) error {
			if err := busy(attempt); err != nil {
				return err
			}
			apply()
			return nil
		}},
		"read": {begins: time.Hour, fails: busy},
	} {
		c.run(t, time.Hour, func(t *testing.T, id string) {
			for range 120 {
				time.Sleep(time.Second)
				if c.begins == 0 { // a change to the pod, as the watch brings it
					c.queue.Add(id)
				}
			}
			patches, reads := c.came()
			asked := map[string][]time.Duration{"patch": patches, "read": reads}[name]
			if len(asked) != 2 || asked[1]-asked[0] < seconds*time.Second || asked[1]-asked[0] > seconds*time.Second*3/2 ||
				!c.has("1/1") {
				t.Errorf("%s: patches after %v, reads after %v", name, patches, reads)
			}
		})
	}
}

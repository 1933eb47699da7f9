package mark

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/plugin/record"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
)

const (
	markers     = 8                     // marks under way at once
	markRetry   = 50 * time.Millisecond // after the first failure
	markRetryUp = 15 * time.Second      // at most
	askedUp     = time.Minute           // likewise if the API server asks for more
	refusedUp   = 5 * time.Minute       // likewise after refusals, each of which may cost the API server a policy's work
	refusedBy   = 4                     // by how many times the pauses between them grow
	remarkAfter = 10 * time.Second      // between two writes of the same mark, should somebody keep taking it away
	watchLate   = 2 * time.Second       // after a record: then a pod that the watch has not brought is read
	// listLate is how long at least after the start the first list is waited for, however old a record: 1,000 agents that
	// started at once had theirs after up to 50 s, and reads of single pods, begun after 15 s, were half of all requests.
	listLate = 30 * time.Second
)

// Result is what an attempt to mark a pod came to.
type Result string

// The results.
const (
	Marked    Result = "marked"
	AlreadyOn Result = "already-marked"
	PodGone   Result = "pod-gone"
	Failed    Result = "failed"
)

// Results lists them all.
var Results = []Result{Marked, AlreadyOn, PodGone, Failed}

// Queue has the pods that are to be looked at, by what records call them.
type Queue struct {
	workqueue.TypedRateLimitingInterface[string]
	pauses *pauses
}

// NewQueue returns an empty queue.
func NewQueue() Queue {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[string](markRetry, markRetryUp)
	p := &pauses{TypedRateLimiter: limiter}
	return Queue{workqueue.NewTypedRateLimitingQueue[string](p), p}
}

// pauses has the marks of many nodes that fail together not be tried together again, and none before the API server
// wants to be asked.
type pauses struct {
	workqueue.TypedRateLimiter[string]
	until sync.Map // of time.Time, by the record's ID of the pod: from then on it may be asked about the pod
}

// When returns how long the next attempt has to wait.
func (p *pauses) When(id string) time.Duration {
	pause := kube.Spread(p.TypedRateLimiter.When(id))
	if until, asked := p.until.Load(id); asked {
		pause = max(pause, time.Until(until.(time.Time)))
	}
	return pause
}

// heed takes note of how long the API server wants not to be asked about a pod, if it has said so (Retry-After).
func (p *pauses) heed(id string, err error) {
	if seconds, asked := apierrors.SuggestsClientDelay(err); asked && seconds > 0 {
		p.until.Store(id, time.Now().Add(kube.Spread(min(time.Duration(seconds)*time.Second, askedUp))))
	}
}

// last reports whether that is not over.
func (p *pauses) last(id string) bool {
	until, asked := p.until.Load(id)
	if asked && time.Now().Before(until.(time.Time)) {
		return true
	}
	p.until.Delete(id)
	return false
}

// API is what of the API server is needed.
type API interface {
	kube.PodReader
	PatchPod(ctx context.Context, namespace, name string, patch []byte) error
}

// Marker tells every pod what its record says: one write per sandbox.
type Marker struct {
	boot    record.BootID
	queue   Queue
	pods    *kube.Pods
	records *Index
	api     API
	done    func(r record.Record, result Result, err error)
	alone   time.Time // from then on pods are read although the first list has not come

	written sync.Map // of writing, by the record's ID of the pod
	refused sync.Map // of refusal, likewise
	unsure  sync.Map // of nothing, likewise: the answer to the last attempt was lost, or late, and the mark may be there
}

// writing is a mark that the API server has acknowledged, or that was found on the pod.
type writing struct {
	mark
	uid   types.UID
	at    time.Time
	found bool // on the pod, not written by this agent
}

// refusal is a mark that the API server does not take. A change of the pod, of which a pod has many, is no reason to
// ask again at once.
type refusal struct {
	mark
	uid   types.UID
	pause time.Duration
	until time.Time
}

// New returns a Marker of what comes into the queue. It calls done after every attempt.
func New(
	boot record.BootID, queue Queue, pods *kube.Pods, records *Index, api API,
	done func(r record.Record, result Result, err error),
) *Marker {
	return &Marker{boot: boot, queue: queue, pods: pods, records: records, api: api, done: done,
		alone: time.Now().Add(kube.Spread(listLate))}
}

// Run works until the context ends.
func (m *Marker) Run(ctx context.Context) {
	var workers sync.WaitGroup
	for range markers {
		workers.Go(func() {
			for m.next(ctx) {
				continue
			}
		})
	}
	<-ctx.Done()
	m.queue.ShutDown()
	workers.Wait()
}

// next looks at one pod; false says that there will be no more.
func (m *Marker) next(ctx context.Context) bool {
	id, down := m.queue.Get()
	if down {
		return false
	}
	defer m.queue.Done(id)
	if m.queue.pauses.last(id) { // the pod has changed meanwhile; it is in the queue for later, too
		return true
	}
	if m.reconcile(ctx, id) {
		m.queue.Forget(id)
	} else {
		m.queue.AddRateLimited(id)
	}
	return true
}

// reconcile marks the pod if there is a record of it that it has not been told about. It returns false if it has to be
// tried again.
func (m *Marker) reconcile(ctx context.Context, id string) bool {
	r, recorded := Current(m.boot, m.records.Of(id))
	if !recorded {
		m.written.Delete(id)
		m.refused.Delete(id)
		m.unsure.Delete(id)
		return true
	}
	ctx = kube.Patient(ctx)
	pod, again := m.find(ctx, id, r)
	if pod == nil || kube.IsMirror(pod) || kube.IsOver(pod) {
		return !again
	}
	want := markOf(r)
	w, written := m.last(id)
	written = written && w.mark == want && w.uid == pod.UID
	switch {
	case want.isOn(pod):
		if !written { // by an earlier agent, or by a request whose answer was lost
			m.remember(id, pod, want, true)
			m.done(r, AlreadyOn, nil)
		}
		return true
	case written && time.Since(w.at) < remarkAfter: // the watch is late, or somebody has taken the mark away
		m.queue.AddAfter(id, remarkAfter-time.Since(w.at))
		return true
	}
	last := m.refusal(id, pod.UID, want)
	if pause := time.Until(last.until); pause > 0 {
		m.queue.AddAfter(id, pause)
		return true
	}
	if _, unsure := m.unsure.Load(id); unsure || written { // where the API server is slow, the watch is late, too
		if pod, again = m.read(ctx, id, r); pod == nil {
			return !again
		}
		if want.isOn(pod) {
			m.remember(id, pod, want, unsure || w.found)
			if unsure {
				m.done(r, AlreadyOn, nil)
			}
			return true
		}
	}
	err := m.api.PatchPod(ctx, pod.Namespace, pod.Name, want.patch(pod.UID))
	if kube.MayBeDone(err) {
		m.unsure.Store(id, nil)
	} else {
		m.unsure.Delete(id)
	}
	switch {
	case err == nil:
		m.remember(id, pod, want, false)
		m.done(r, Marked, nil)
	case kube.IsGone(err):
		m.done(r, PodGone, err)
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return true // the agent ends; the next one goes on
	case kube.IsRefusal(err):
		m.done(r, Failed, err)
		last.pause = min(max(refusedBy*last.pause, time.Second), refusedUp)
		pause := kube.Spread(last.pause)
		last.until = time.Now().Add(pause)
		m.refused.Store(id, last)
		m.queue.AddAfter(id, pause)
	default:
		m.done(r, Failed, err)
		m.queue.pauses.heed(id, err)
		return false
	}
	return true
}

// find returns the pod of a record. One that the watch has not brought comes back here when it does, or is read from
// the API server after a while: after a failure client-go waits for half a minute before it watches again, and the pod
// waits for its mark. Before the first list that says nothing: an agent that starts on a full node would read every
// pod, and so would the agents of all other nodes after an upgrade.
func (m *Marker) find(ctx context.Context, id string, r record.Record) (pod *corev1.Pod, again bool) {
	if pod := m.pods.WithID(id); pod != nil && pod.Namespace == r.Namespace && pod.Name == r.Name {
		return pod, false
	}
	if wait := time.Until(m.alone); wait > 0 && !m.pods.Synced() {
		m.queue.AddAfter(id, wait) // the list brings it back before
		return nil, false
	}
	if age := time.Since(r.Time); age >= 0 && age < watchLate { // the clock may have been put back since
		m.queue.AddAfter(id, watchLate-age)
		return nil, false
	}
	return m.read(ctx, id, r)
}

// read returns the pod of a record as it is now.
func (m *Marker) read(ctx context.Context, id string, r record.Record) (pod *corev1.Pod, again bool) {
	pod, err := m.api.Pod(ctx, r.Namespace, r.Name)
	switch {
	case apierrors.IsNotFound(err):
		return nil, false
	case err != nil:
		m.queue.pauses.heed(id, err)
		return nil, ctx.Err() == nil
	case !kube.IsMeant(pod, r.PodUID):
		return nil, false
	}
	return pod, false
}

// last is what this agent wrote last for the pod.
func (m *Marker) last(id string) (w writing, written bool) {
	if known, exists := m.written.Load(id); exists {
		return known.(writing), true
	}
	return w, false
}

// MarkedSince is when this agent wrote the mark, or first saw it.
func (m *Marker) MarkedSince(id string) (at time.Time, marked bool) {
	w, marked := m.last(id)
	return w.at, marked
}

// Wrote reports whether this agent wrote the mark.
func (m *Marker) Wrote(id string) bool {
	w, known := m.last(id)
	return known && !w.found
}

// refusal is the last one of this mark on that pod; the first has no pause yet.
func (m *Marker) refusal(id string, uid types.UID, of mark) refusal {
	if known, exists := m.refused.Load(id); exists && known.(refusal).uid == uid && known.(refusal).mark == of {
		return known.(refusal)
	}
	return refusal{mark: of, uid: uid}
}

func (m *Marker) remember(id string, pod *corev1.Pod, is mark, found bool) {
	m.refused.Delete(id)
	m.unsure.Delete(id)
	m.written.Store(id, writing{is, pod.UID, time.Now(), found})
}

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
	markers     = 8                     // marks that are written at the same time
	markRetry   = 50 * time.Millisecond // pause after the first failure
	markRetryUp = 15 * time.Second      // longest pause
	askedUp     = time.Minute           // longest pause that the API server may ask for (Retry-After)
	refusedUp   = 5 * time.Minute       // longest pause after refusals: an admission policy may run each time
	refusedBy   = 4                     // factor by which the pauses after refusals grow
	remarkAfter = 10 * time.Second      // between two writes of the same mark, if somebody removes it again and again
	watchLate   = 2 * time.Second       // after a record: a pod that the watch has not brought by then is read
	// listLate is the shortest time after the agent's start in which the first list is awaited, however old a record is.
	// When 1,000 agents started at the same time, their lists took up to 50 s. With 15 s here, half of all requests were
	// reads of single pods.
	listLate = 30 * time.Second
)

// Result is the result of an attempt to mark a pod.
type Result string

// Values of Result, which are values of a metric's label, too.
const (
	Marked    Result = "marked"
	AlreadyOn Result = "already-marked"
	PodGone   Result = "pod-gone"
	Failed    Result = "failed"
)

// Results lists all values.
var Results = []Result{Marked, AlreadyOn, PodGone, Failed}

// Queue has the IDs of the pods to look at, as records have them.
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

// pauses is the queue's rate limiter. It spreads the attempts of many agents that fail at the same time, and respects
// the API server's Retry-After.
type pauses struct {
	workqueue.TypedRateLimiter[string]
	until sync.Map // time.Time by PodID: no request about the pod before it
}

// When returns how long the next attempt has to wait.
func (p *pauses) When(id string) time.Duration {
	pause := kube.Spread(p.TypedRateLimiter.When(id))
	if until, asked := p.until.Load(id); asked {
		pause = max(pause, time.Until(until.(time.Time)))
	}
	return pause
}

// heed stores the API server's Retry-After for requests about the pod, if the error has one.
func (p *pauses) heed(id string, err error) {
	if seconds, asked := apierrors.SuggestsClientDelay(err); asked && seconds > 0 {
		p.until.Store(id, time.Now().Add(kube.Spread(min(time.Duration(seconds)*time.Second, askedUp))))
	}
}

// last reports whether the Retry-After for the pod still lasts.
func (p *pauses) last(id string) bool {
	until, asked := p.until.Load(id)
	if asked && time.Now().Before(until.(time.Time)) {
		return true
	}
	p.until.Delete(id)
	return false
}

// API is the part of the API server's client that a Marker needs.
type API interface {
	kube.PodReader
	PatchPod(ctx context.Context, namespace, name string, patch []byte) error
}

// Marker marks every pod with what its record says: one write for each sandbox.
type Marker struct {
	boot    record.BootID
	queue   Queue
	pods    *kube.Pods
	records *Index
	api     API
	done    func(r record.Record, result Result, err error)
	alone   time.Time // from then on single pods are read although the first list has not come

	written sync.Map // values writing, by PodID
	refused sync.Map // values refusal, by PodID
	unsure  sync.Map // no values, by PodID: the last answer was lost or late, so the pod may have the mark
}

// writing is a mark that the API server has confirmed, or that was found on the pod.
type writing struct {
	mark
	uid   types.UID
	at    time.Time
	found bool // it was on the pod, and this agent did not write it
}

// refusal is a mark that the API server rejects. The pod's frequent changes are no reason to try again at once.
type refusal struct {
	mark
	uid   types.UID
	pause time.Duration
	until time.Time
}

// New returns a Marker of the pods in the queue. It calls done after every attempt.
func New(
	boot record.BootID, queue Queue, pods *kube.Pods, records *Index, api API,
	done func(r record.Record, result Result, err error),
) *Marker {
	return &Marker{boot: boot, queue: queue, pods: pods, records: records, api: api, done: done,
		alone: time.Now().Add(kube.Spread(listLate))}
}

// Run marks pods until ctx ends.
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

// next takes one pod from the queue. It returns false if the queue is shut down.
func (m *Marker) next(ctx context.Context) bool {
	id, down := m.queue.Get()
	if down {
		return false
	}
	defer m.queue.Done(id)
	if m.queue.pauses.last(id) { // the pod has changed meanwhile; the queue has it for later, too
		return true
	}
	if m.reconcile(ctx, id) {
		m.queue.Forget(id)
	} else {
		m.queue.AddRateLimited(id)
	}
	return true
}

// reconcile marks the pod if its current record is not on it yet. It returns false if it has to be tried again.
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
	case written && time.Since(w.at) < remarkAfter: // the watch is late, or somebody has removed the mark
		m.queue.AddAfter(id, remarkAfter-time.Since(w.at))
		return true
	}
	last := m.refusal(id, pod.UID, want)
	if pause := time.Until(last.until); pause > 0 {
		m.queue.AddAfter(id, pause)
		return true
	}
	if _, unsure := m.unsure.Load(id); unsure || written { // if the API server is slow, the watch may be late, too
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
		return true // the agent ends; the next one continues
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

// find returns the pod of a record. If the watch has not brought the pod, the queue gets it again when the watch does.
// After watchLate the pod is read from the API server: client-go waits up to half a minute after a failure before it
// watches again, and the pod waits for its mark. Before the first list a missing pod means nothing: an agent that
// starts on a full node would read every pod, and after an upgrade so would the agents of all nodes.
func (m *Marker) find(ctx context.Context, id string, r record.Record) (pod *corev1.Pod, again bool) {
	if pod := m.pods.WithID(id); pod != nil && pod.Namespace == r.Namespace && pod.Name == r.Name {
		return pod, false
	}
	if wait := time.Until(m.alone); wait > 0 && !m.pods.Synced() {
		m.queue.AddAfter(id, wait) // the list brings it earlier
		return nil, false
	}
	if age := time.Since(r.Time); age >= 0 && age < watchLate { // the clock may have been set back
		m.queue.AddAfter(id, watchLate-age)
		return nil, false
	}
	return m.read(ctx, id, r)
}

// read returns the pod of a record as the API server has it now. again is true if it has to be tried again.
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

// last returns the last mark that this agent wrote to the pod or found there.
func (m *Marker) last(id string) (w writing, written bool) {
	if known, exists := m.written.Load(id); exists {
		return known.(writing), true
	}
	return w, false
}

// MarkedSince returns when this agent wrote the mark, or found it on the pod.
func (m *Marker) MarkedSince(id string) (at time.Time, marked bool) {
	w, marked := m.last(id)
	return w.at, marked
}

// Wrote reports whether this agent wrote the mark.
func (m *Marker) Wrote(id string) bool {
	w, known := m.last(id)
	return known && !w.found
}

// refusal returns the last refusal of this mark for that pod, or one without a pause if there is none.
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

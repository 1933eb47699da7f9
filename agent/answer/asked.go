package answer

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// rememberFor is how long a question is remembered about a pod that the watch does not have, or no longer has.
const rememberFor = 10 * time.Minute

// questions are the pods about which the plugin has asked. The runtime has run the plugin for each of them.
type questions struct {
	mu    sync.Mutex
	since time.Time               // when the first question could arrive; zero before that
	last  map[types.UID]time.Time // by pod
}

func (q *questions) note(uid types.UID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.last == nil {
		q.last = map[types.UID]time.Time{}
	}
	q.last[uid] = time.Now()
}

// Listening says that no question can be missed from now on.
func (q *questions) Listening() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.since = time.Now()
}

// HeardSince returns the time since which no question can have been missed, or the zero time.
func (q *questions) HeardSince() time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.since
}

// Asked reports whether the plugin has asked about the pod.
func (q *questions) Asked(uid types.UID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, asked := q.last[uid]
	return asked
}

// Forget drops what is known of pods that no longer exist.
func (q *questions) Forget(exists func(types.UID) bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for uid, at := range q.last {
		if !exists(uid) && time.Since(at) > rememberFor {
			delete(q.last, uid)
		}
	}
}

package answer

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// rememberFor is how long a question about a pod is remembered that the watch does not have, or not any more.
const rememberFor = 10 * time.Minute

// questions has about which pods the plugin has asked: for those the runtime has run it.
type questions struct {
	mu    sync.Mutex
	since time.Time               // when the first one could be heard; zero before
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

// Listening says that from now on no question can be missed.
func (q *questions) Listening() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.since = time.Now()
}

// HeardSince is since when every question of the plugin comes here, zero if it does not.
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

// Forget drops what is known of pods that are not there any more.
func (q *questions) Forget(exists func(types.UID) bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for uid, at := range q.last {
		if !exists(uid) && time.Since(at) > rememberFor {
			delete(q.last, uid)
		}
	}
}

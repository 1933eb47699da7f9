package cluster

import (
	"context"
	"sync"
	"time"
)

// AtOnce calls do with each number below count, for at most so many at once, and returns when all calls have: a large
// cluster is asked soon, and not by all of its nodes' answers together.
func AtOnce(count, most int, do func(i int)) {
	turns := make(chan struct{}, most)
	var all sync.WaitGroup
	for i := range count {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			do(i)
		})
	}
	all.Wait()
}

// Pause waits, and reports whether there is reason to go on.
func Pause(ctx context.Context, long time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(long):
		return true
	}
}

package cluster

import (
	"context"
	"sync"
	"time"
)

// AtOnce calls do with each number below count, at most that many at the same time, and returns after all calls. So a
// large cluster is asked quickly, but not all nodes answer at the same time.
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

// Pause waits, and reports whether ctx has not ended.
func Pause(ctx context.Context, long time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(long):
		return true
	}
}

package cluster

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"
)

// Each number is passed once. The largest number of calls at the same time is reached but not exceeded.
func TestAtOnce(t *testing.T) {
	const count, most = 10, 3
	var mu sync.Mutex
	var done []int
	now, highest := 0, 0
	var first sync.WaitGroup
	first.Add(most)
	AtOnce(count, most, func(i int) {
		mu.Lock()
		now++
		highest = max(highest, now)
		done = append(done, i)
		mu.Unlock()
		if i < most {
			first.Done()
			first.Wait()
		}
		mu.Lock()
		now--
		mu.Unlock()
	})
	if slices.Sort(done); len(slices.Compact(done)) != count || done[count-1] != count-1 || highest != most {
		t.Errorf("%v, %d at once", done, highest)
	}
	AtOnce(0, most, func(int) { t.Error("called") })
}

func TestPause(t *testing.T) {
	if !Pause(t.Context(), time.Nanosecond) {
		t.Error("no reason to go on")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if Pause(ctx, time.Hour) {
		t.Error("a reason to go on")
	}
}

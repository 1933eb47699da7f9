package kube

import (
	"testing"
	"time"
)

// Spread returns durations from d to 1.5 d, and not always the same.
func TestSpread(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 100 {
		d := Spread(time.Second)
		if d < time.Second || d >= 3*time.Second/2 {
			t.Errorf("%v", d)
		}
		seen[d] = true
	}
	if len(seen) < 50 {
		t.Errorf("%d different pauses of 100", len(seen))
	}
}

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

// Pauses grow up to the longest, and each is spread.
func TestBackoff(t *testing.T) {
	pause := Backoff(time.Second, 5*time.Second)
	for n, want := range []time.Duration{1, 2, 4, 5, 5, 5} {
		want *= time.Second
		if d := pause(); d < want || d >= 3*want/2 {
			t.Errorf("pause %d is %v, want %v to 1.5 times that", n, d, want)
		}
	}
}

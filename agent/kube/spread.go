package kube

import (
	"math"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// Spread returns a random duration from d to 1.5 d. The API server's failures hit the agents of all nodes at the same
// time, and without this all would try again at the same time. client-go spreads lists and watches itself
// (tools/cache/reflector.go).
func Spread(d time.Duration) time.Duration { return wait.Jitter(d, 0.5) }

// Backoff returns a function that returns the pauses after failures: the first is Spread(first), and each of the next
// ones twice as long, up to Spread(longest). Where a failure lasts, such as a right that is missing, the agents of all
// nodes would otherwise ask as often as at first, for ever.
func Backoff(first, longest time.Duration) (pause func() time.Duration) {
	b := wait.Backoff{Duration: first, Factor: 2, Jitter: 0.5, Steps: math.MaxInt, Cap: longest}
	return b.Step
}

package kube

import (
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// Spread returns a random duration from d to 1.5 d. The API server's failures hit the agents of all nodes at the same
// time, and without this all would try again at the same time. client-go spreads lists and watches itself
// (tools/cache/reflector.go).
func Spread(d time.Duration) time.Duration { return wait.Jitter(d, 0.5) }

package kube

import (
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// Spread returns d, or up to half as much more, at random: what the API server fails, it fails for the agents of all
// nodes, which would otherwise all ask again at the same moments. Lists and watches spread theirs themselves
// (tools/cache/reflector.go).
func Spread(d time.Duration) time.Duration { return wait.Jitter(d, 0.5) }

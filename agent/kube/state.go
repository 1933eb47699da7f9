package kube

import (
	"time"

	"github.com/istio-pod-network/controller/internal/podfacts"
	corev1 "k8s.io/api/core/v1"
)

// reportedWithin is how long after its network was made a sandbox may be reported as ready. A pod with a new sandbox
// keeps its start time, so only the time of that report is known.
const reportedWithin = 30 * time.Second

// HasNetworkSince reports whether the pod's network was certainly made after that time. Times in the API are whole
// seconds, rounded down, so a later one is certainly later.
func HasNetworkSince(pod *corev1.Pod, chained time.Time) bool {
	if len(pod.Status.PodIPs) == 0 {
		return false
	}
	for _, c := range pod.Status.Conditions {
		if c.Type != corev1.PodReadyToStartContainers {
			continue
		}
		if c.Status != corev1.ConditionTrue { // the old sandbox is gone, the new one not ready
			return false
		}
		if c.LastTransitionTime.After(chained.Add(reportedWithin)) {
			return true
		}
	}
	return pod.Status.StartTime != nil && pod.Status.StartTime.After(chained) // when the kubelet first saw the pod
}

// WaitsLong reports whether the pod's init wait has not ended, and has been running for longer than the duration or has
// failed before.
func WaitsLong(pod *corev1.Pod, now time.Time, than time.Duration) bool {
	_, its := podfacts.WaitStatus(pod)
	if IsOver(pod) || !podfacts.IsHeld(pod) {
		return false
	}
	long := its.State.Running != nil && now.Sub(its.State.Running.StartedAt.Time) > than
	return long || its.State.Terminated != nil || its.RestartCount > 0
}

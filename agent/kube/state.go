package kube

import (
	"time"

	"github.com/istio-pod-network/controller/internal/podfacts"
	corev1 "k8s.io/api/core/v1"
)

// reportedWithin is how long after its network was set up a sandbox may be reported as ready. A pod whose sandbox was
// made again keeps its start time, so only the time when the kubelet reported that sandbox is known.
const reportedWithin = 30 * time.Second

// HasNetworkSince reports whether the pod has a network that was certainly made after that time. Kubernetes tells times
// in whole seconds, rounded down, so one that is later is later.
func HasNetworkSince(pod *corev1.Pod, chained time.Time) bool {
	if len(pod.Status.PodIPs) == 0 {
		return false
	}
	for _, c := range pod.Status.Conditions {
		if c.Type != corev1.PodReadyToStartContainers {
			continue
		}
		if c.Status != corev1.ConditionTrue { // between two sandboxes
			return false
		}
		if c.LastTransitionTime.After(chained.Add(reportedWithin)) {
			return true
		}
	}
	return pod.Status.StartTime != nil && pod.Status.StartTime.After(chained) // the kubelet first heard of the pod
}

// WaitsLong reports whether the pod is held by its init wait, which has been running for longer than that, or has given
// up before.
func WaitsLong(pod *corev1.Pod, now time.Time, than time.Duration) bool {
	_, its := podfacts.WaitStatus(pod)
	if IsOver(pod) || !podfacts.IsHeld(pod) {
		return false
	}
	long := its.State.Running != nil && now.Sub(its.State.Running.StartedAt.Time) > than
	return long || its.State.Terminated != nil || its.RestartCount > 0
}

package agent

import (
	"time"

	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
)

// reportedWithin is how long after its network was set up a sandbox may be reported as ready. A pod whose sandbox was
// made again keeps its start time, so what is known of that sandbox is when the kubelet said so.
const reportedWithin = 30 * time.Second

// bypasses reports whether the pod is in the mesh, has a network that was made after the plugin was chained, and yet has no
// record: the runtime did not run the plugin for it. The caller has looked for the record.
func bypasses(pod *corev1.Pod, namespace map[string]string, policy redirect.Policy, chainedSince time.Time) bool {
	if pod.Spec.HostNetwork || isMirror(pod) || isOver(pod) || chainedSince.IsZero() || !hasNetworkSince(pod, chainedSince) {
		return false
	}
	decision, err := redirect.Decide(factsOf(pod, namespace), policy)
	return err == nil && decision.Verdict == redirect.Redirect
}

// hasNetworkSince reports whether the pod has a network that was certainly made after that time. Kubernetes tells times in
// whole seconds, rounded down, so one that is later is later.
func hasNetworkSince(pod *corev1.Pod, chained time.Time) bool {
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

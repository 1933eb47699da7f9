package kube

import (
	"path"
	"slices"
	"time"

	"github.com/istio-pod-network/controller/plugin/redirect"
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

// InitWait returns the init container that waits for the mark, with its state; "" if the pod has none.
func InitWait(pod *corev1.Pod) (name string, state corev1.ContainerState) {
	i := slices.IndexFunc(pod.Spec.InitContainers, isWait)
	if i < 0 {
		return "", state
	}
	name = pod.Spec.InitContainers[i].Name
	for _, status := range pod.Status.InitContainerStatuses {
		if status.Name == name {
			state = status.State
		}
	}
	return name, state
}

// IsHeld reports whether the pod has an init wait that has not let it go: it does not start until its network is
// initialized.
func IsHeld(pod *corev1.Pod) bool {
	name, state := InitWait(pod)
	return name != "" && (state.Terminated == nil || state.Terminated.ExitCode != 0)
}

// WaitProgram is what runs in an init wait; under the names of Istio's own containers it may also be Istio's
// validation.
const WaitProgram = "istio-pod-network-wait"

func isWait(c corev1.Container) bool {
	return runsWait(c) || c.Name == "istio-validation" || c.Name == redirect.InitContainer && !isNetAdmin(c)
}

func runsWait(c corev1.Container) bool {
	return len(c.Command) > 0 && path.Base(c.Command[0]) == WaitProgram
}

package podfacts

import (
	"path"
	"slices"

	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
)

// InitWait returns the name and the state of the pod's init wait. The name is "" if it has none.
func InitWait(pod *corev1.Pod) (name string, state corev1.ContainerState) {
	name, status := WaitStatus(pod)
	return name, status.State
}

// WaitStatus returns the name and the whole status of the pod's init wait.
func WaitStatus(pod *corev1.Pod) (name string, its corev1.ContainerStatus) {
	i := slices.IndexFunc(pod.Spec.InitContainers, IsWait)
	if i < 0 {
		return "", its
	}
	name = pod.Spec.InitContainers[i].Name
	for _, status := range pod.Status.InitContainerStatuses {
		if status.Name == name {
			its = status
		}
	}
	return name, its
}

// IsHeld reports whether the pod has an init wait that has not ended: the pod does not start until its network is
// ready.
func IsHeld(pod *corev1.Pod) bool {
	name, state := InitWait(pod)
	return name != "" && (state.Terminated == nil || state.Terminated.ExitCode != 0)
}

// WaitProgram is the program of an init wait. In a container with a name of Istio's, Istio's own validation may run
// instead.
const WaitProgram = "istio-pod-network-wait"

// IsWait reports whether an init container is an init wait.
func IsWait(c corev1.Container) bool {
	return RunsWait(c) || c.Name == "istio-validation" || c.Name == redirect.InitContainer && !IsNetAdmin(c)
}

// RunsWait reports whether our own program runs in the init wait.
func RunsWait(c corev1.Container) bool {
	return len(c.Command) > 0 && path.Base(c.Command[0]) == WaitProgram
}

package podfacts

import (
	"path"
	"slices"

	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
)

// InitWait returns the init container that waits for the mark, with its state; "" if the pod has none.
func InitWait(pod *corev1.Pod) (name string, state corev1.ContainerState) {
	name, status := WaitStatus(pod)
	return name, status.State
}

// WaitStatus is InitWait with all that the pod's status says of that container.
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

// IsHeld reports whether the pod has an init wait that has not let it go: it does not start until its network is
// initialized.
func IsHeld(pod *corev1.Pod) bool {
	name, state := InitWait(pod)
	return name != "" && (state.Terminated == nil || state.Terminated.ExitCode != 0)
}

// WaitProgram is what runs in an init wait; under the names of Istio's own containers it may also be Istio's
// validation.
const WaitProgram = "istio-pod-network-wait"

// IsWait reports whether an init container waits for the mark.
func IsWait(c corev1.Container) bool {
	return RunsWait(c) || c.Name == "istio-validation" || c.Name == redirect.InitContainer && !IsNetAdmin(c)
}

// RunsWait reports whether our own program waits in it.
func RunsWait(c corev1.Container) bool {
	return len(c.Command) > 0 && path.Base(c.Command[0]) == WaitProgram
}

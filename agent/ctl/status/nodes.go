package status

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/internal/excerpt"
	corev1 "k8s.io/api/core/v1"
)

// isReady reports whether a pod is ready.
func isReady(pod corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// whyNot returns why a pod does not run, and what to do next, if that is known.
func whyNot(pod corev1.Pod) (why, next string) {
	if pod.DeletionTimestamp != nil {
		return "it is being deleted", ""
	}
	for _, c := range pod.Status.ContainerStatuses {
		if w := c.State.Waiting; w != nil {
			why = cmp.Or(w.Reason, "its container waits")
			if w.Message != "" {
				why += ": " + excerpt.Head(w.Message, longestReason)
			}
			return why, nextOfWaiting(w.Reason, c.Image)
		}
	}
	return "it is " + cmp.Or(string(pod.Status.Phase), "not there yet"), ""
}

// longestReason is the largest number of bytes of the kubelet's text that is shown.
const longestReason = 300

// nextOfWaiting returns what to do about a waiting container, "" for an unknown reason. The reasons are the kubelet's
// (pkg/kubelet/images/types.go, pkg/kubelet/kuberuntime/kuberuntime_container.go).
func nextOfWaiting(reason, image string) string {
	switch {
	case reason == "ErrImageNeverPull":
		return fmt.Sprintf("the image %s must be on the node, or image.pullPolicy another one", image)
	case cluster.LacksImage(reason):
		return fmt.Sprintf("the node must be able to pull the image %s: see the values image.registry, image.tag and "+
			"imagePullSecrets, and that the secret is in the agents' namespace", image)
	case reason == "CreateContainerError":
		return "the runtime refuses the container; where it says \"not a shared or slave mount\", set repair=delete " +
			"(docs/troubleshooting.md, Hosts that share no mounts)"
	}
	return ""
}

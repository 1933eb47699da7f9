package kube

import (
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
)

// Bounds of what is kept of one pod, so that the pods of a node need less memory than the agent has, whatever people
// write into them.
const (
	longestWord   = 253      // bytes of a value that is one word or a name; what is longer is neither
	longestEnv    = 4 << 10  // bytes of a variable
	maxSettings   = 16 << 10 // bytes of the settings in annotations, all together
	maxContainers = 100
)

// keyPartial is on a pod of which more would be looked at than is kept. No annotation of a real pod has a space in its
// name.
const keyPartial = "istio-pod-network partial"

// IsPartial reports whether only part of what the plugin asks for is kept of the pod: it has to be read from the API
// server.
func IsPartial(pod *corev1.Pod) bool {
	_, partial := pod.Annotations[keyPartial]
	return partial
}

// keep returns what is kept of a pod: what is looked at, up to the bounds. What is left of a pod that exceeds them
// still says whether it is in the mesh, whether it waits and what marks it carries.
func keep(pod *corev1.Pod) *corev1.Pod {
	small := trim(pod)
	settings := 0
	for _, value := range small.Annotations {
		settings += len(value)
	}
	partial := settings > maxSettings
	if partial {
		for key, value := range small.Annotations {
			switch {
			case len(value) <= longestWord:
			case redirect.IsReadable(key, value):
				small.Annotations[key] = ""
			default: // nor can its beginning be read, so that a warning still names it
				small.Annotations[key] = word(value)
			}
		}
	}
	if len(small.Spec.Containers)+len(small.Spec.InitContainers) > maxContainers {
		partial = true
		keepContainers(small)
	}
	if partial {
		small.Annotations[keyPartial] = ""
	}
	return small
}

// keepContainers drops containers: those that no decision depends on, but as users that they may share.
func keepContainers(pod *corev1.Pod) {
	kept := map[string]bool{}
	wait, _ := InitWait(pod)
	first := func(containers []corev1.Container) []corev1.Container {
		var some []corev1.Container
		for _, c := range containers {
			special := c.Name == redirect.ProxyContainer || c.Name == redirect.InitContainer || c.Name == wait
			if special || len(some) < maxContainers/2 {
				some, kept[c.Name] = append(some, c), true
			}
		}
		return some
	}
	pod.Spec.Containers, pod.Spec.InitContainers = first(pod.Spec.Containers), first(pod.Spec.InitContainers)
	pod.Status.ContainerStatuses = statusesOf(kept, pod.Status.ContainerStatuses)
	pod.Status.InitContainerStatuses = statusesOf(kept, pod.Status.InitContainerStatuses)
}

func statusesOf(containers map[string]bool, statuses []corev1.ContainerStatus) (their []corev1.ContainerStatus) {
	for _, s := range statuses {
		if containers[s.Name] {
			their = append(their, s)
		}
	}
	return their
}

// shorten returns a text that stands for one that is too long, and says the same to nobody.
func shorten(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return text[:limit] + "…"
}

func word(text string) string { return shorten(text, longestWord) }

func words(texts []string) []string {
	for i := range texts {
		texts[i] = word(texts[i])
	}
	return texts
}

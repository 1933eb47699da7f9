package kube

import (
	"maps"
	"strings"
	"sync"

	"github.com/istio-pod-network/controller/plugin/annotation"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// befores has the annotations that pods had before they had a network, as far as the watch has shown them.
type befores struct {
	mu   sync.Mutex
	pods map[types.UID]*before
}

// before is what is known of one pod.
type before struct {
	annotations map[string]string // the ones that Decisive returns
	known       bool              // seen since the pod's creation, and unchanged until the network was made
	network     string            // NetworkOf the first network that was seen; "" before
}

// NetworkOf returns a name for the network in a pod's status, "" if it has none. A new sandbox of the pod has another
// name, because the kubelet then sets the condition PodReadyToStartContainers again.
func NetworkOf(pod *corev1.Pod) string {
	if len(pod.Status.PodIPs) == 0 {
		return ""
	}
	name := pod.Status.PodIPs[0].IP
	for _, c := range pod.Status.Conditions {
		if c.Type != corev1.PodReadyToStartContainers {
			continue
		}
		if c.Status != corev1.ConditionTrue { // the old sandbox is gone, the new one not ready
			return ""
		}
		name += " " + c.LastTransitionTime.String()
	}
	return name
}

// see records a state of the pod. The caller passes the states in their order.
func (b *befores) see(pod *corev1.Pod) {
	b.mu.Lock()
	defer b.mu.Unlock()
	network := NetworkOf(pod)
	seen := b.pods[pod.UID]
	switch {
	case seen == nil:
		// The kubelet has reported on this pod, so it may have got its network before the watch showed it.
		seen = &before{known: network == "" && pod.Status.StartTime == nil}
		if seen.known {
			seen.annotations = Decisive(pod.Annotations)
		}
		b.pods[pod.UID] = seen
	case seen.network != "":
		return
	case seen.known && !maps.Equal(seen.annotations, Decisive(pod.Annotations)):
		seen.known, seen.annotations = false, nil
	}
	seen.network = network
}

// Decisive returns the annotations on which a decision may depend, chosen by their domains. It leaves out the marks,
// because the agent writes these itself.
func Decisive(all map[string]string) map[string]string {
	some := map[string]string{}
	for key, value := range all {
		switch domain, _, _ := strings.Cut(key, "/"); {
		case key == annotation.Status, key == annotation.NetNS, key == annotation.Reason, key == annotation.Families:
		case domain == "istio.io", strings.HasSuffix(domain, ".istio.io"), domain == "openshift.io",
			key == annotation.Initialize:
			some[key] = value
		}
	}
	return some
}

func (b *befores) forget(uid types.UID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.pods, uid)
}

// AnnotationsBefore returns the annotations that the pod had when its present network was made. known is false unless
// the watch has shown the pod since its creation and they did not change until then.
func (c *Pods) AnnotationsBefore(pod *corev1.Pod) (annotations map[string]string, known bool) {
	c.before.mu.Lock()
	defer c.before.mu.Unlock()
	seen := c.before.pods[pod.UID]
	if seen == nil || !seen.known || seen.network == "" || seen.network != NetworkOf(pod) {
		return nil, false
	}
	return seen.annotations, true
}

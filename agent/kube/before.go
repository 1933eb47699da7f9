package kube

import (
	"maps"
	"strings"
	"sync"

	"github.com/istio-pod-network/controller/plugin/annotation"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// befores has what pods said before they had a network, as far as the watch has shown it.
type befores struct {
	mu   sync.Mutex
	pods map[types.UID]*before
}

// before is what one pod said.
type before struct {
	annotations map[string]string // those that are read
	known       bool              // they were seen from the beginning, and were the same until the network came
	network     string            // the first one that was seen; "" before
}

// NetworkOf names the network that a pod's status tells of, "" if it has none. A pod whose sandbox is made again has
// another name: the kubelet then sets its condition anew.
func NetworkOf(pod *corev1.Pod) string {
	if len(pod.Status.PodIPs) == 0 {
		return ""
	}
	name := pod.Status.PodIPs[0].IP
	for _, c := range pod.Status.Conditions {
		if c.Type != corev1.PodReadyToStartContainers {
			continue
		}
		if c.Status != corev1.ConditionTrue { // between two sandboxes
			return ""
		}
		name += " " + c.LastTransitionTime.String()
	}
	return name
}

// see takes note of a state of the pod. The states come in their order.
func (b *befores) see(pod *corev1.Pod) {
	b.mu.Lock()
	defer b.mu.Unlock()
	network := NetworkOf(pod)
	seen := b.pods[pod.UID]
	switch {
	case seen == nil:
		// A pod that the kubelet has reported about may have had its network before this.
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

// Decisive returns those of a pod's annotations that a decision may depend on, by their domains, without the marks,
// which the agent writes itself.
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

// AnnotationsBefore returns the annotations that the pod had when it got the network that it has, if the watch has
// shown the pod from its beginning and they were the same all the time.
func (c *Pods) AnnotationsBefore(pod *corev1.Pod) (annotations map[string]string, known bool) {
	c.before.mu.Lock()
	defer c.before.mu.Unlock()
	seen := c.before.pods[pod.UID]
	if seen == nil || !seen.known || seen.network == "" || seen.network != NetworkOf(pod) {
		return nil, false
	}
	return seen.annotations, true
}

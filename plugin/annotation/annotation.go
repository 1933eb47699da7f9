// Package annotation names what plugin, agent and wait read from pods and namespaces, and what the agent tells a pod.
// It is names alone, so that the wait, which starts in every mesh pod, shares them without the core.
package annotation

// Prefixes of the names of Istio's traffic annotations and of this controller's.
const (
	TrafficPrefix    = "traffic.sidecar.istio.io/"
	ControllerPrefix = "pod-network-controller.istio.io/"
)

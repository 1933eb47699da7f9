// Package annotation has the names of the annotations that plugin, agent and wait read, and of those that the agent
// writes. It has no code, so that the wait, which runs in every mesh pod, stays small.
package annotation

// Prefixes of annotation names: TrafficPrefix of Istio's traffic annotations, ControllerPrefix of this controller's
// own.
const (
	TrafficPrefix    = "traffic.sidecar.istio.io/"
	ControllerPrefix = "pod-network-controller.istio.io/"
)

package record

// Annotations by which the agent tells the pod's init wait what a record says.
const (
	KeyStatus = "pod-network-controller.istio.io/status" // StatusInitialized or StatusNotRequired
	KeyNetNS  = "pod-network-controller.istio.io/netns"  // Record.NetNS: the network namespace that the status is about
	KeyReason = "pod-network-controller.istio.io/reason" // Record.Reason, with StatusNotRequired only
)

// Values of KeyStatus.
const (
	StatusInitialized = "initialized"  // the rules are in the network namespace
	StatusNotRequired = "not-required" // the pod carries mesh annotations and was left untouched
)

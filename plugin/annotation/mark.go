package annotation

// The mark, by which the agent tells a pod's init wait what a record says.
const (
	Status = ControllerPrefix + "status" // Initialized or NotRequired
	NetNS  = ControllerPrefix + "netns"  // the network namespace that the status is about, as in the record
	Reason = ControllerPrefix + "reason" // the reason of the record; earlier releases gave none with Initialized
	// Families is the one family that is captured, IPv4 or IPv6. Without it both are.
	Families = ControllerPrefix + "families"
)

// Values of Status.
const (
	Initialized = "initialized"  // the rules are in the network namespace
	NotRequired = "not-required" // the pod carries mesh annotations and was left untouched
)

// NoProxy is the value of Reason that makes the wait fail: the pod opted in, and there is no proxy container.
const NoProxy = "opted-in-no-proxy"

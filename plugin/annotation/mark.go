package annotation

// Annotations of the mark, by which the agent tells a pod's init wait what the record says.
const (
	Status = ControllerPrefix + "status" // see Initialized and NotRequired
	NetNS  = ControllerPrefix + "netns"  // the network namespace that the status is about, in the record's form
	Reason = ControllerPrefix + "reason" // the reason in the record; earlier releases wrote none with Initialized
	// Families is the one family that is captured: IPv4 or IPv6. If it is absent, both are.
	Families = ControllerPrefix + "families"
)

// Values of Status.
const (
	Initialized = "initialized"  // the rules are in the network namespace
	NotRequired = "not-required" // the pod has mesh annotations and was left untouched
)

// NoProxy is the value of Reason that makes the wait fail: the pod opted in, but it has no proxy container.
const NoProxy = "opted-in-no-proxy"

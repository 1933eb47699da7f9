package record

import "github.com/istio-pod-network/controller/plugin/annotation"

// These go once their last users say annotation.
const (
	KeyStatus         = annotation.Status
	KeyNetNS          = annotation.NetNS
	KeyReason         = annotation.Reason
	StatusInitialized = annotation.Initialized
	StatusNotRequired = annotation.NotRequired
)

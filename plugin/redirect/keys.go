package redirect

import "github.com/istio-pod-network/controller/plugin/annotation"

// These go once their last users say annotation.
const (
	KeyStatus                   = annotation.SidecarStatus
	KeyInject                   = annotation.SidecarInject
	KeyMode                     = annotation.InterceptionMode
	KeyIncludeOutboundIPRanges  = annotation.IncludeOutboundIPRanges
	KeyExcludeOutboundIPRanges  = annotation.ExcludeOutboundIPRanges
	KeyIncludeInboundPorts      = annotation.IncludeInboundPorts
	KeyExcludeInboundPorts      = annotation.ExcludeInboundPorts
	KeyIncludeOutboundPorts     = annotation.IncludeOutboundPorts
	KeyExcludeOutboundPorts     = annotation.ExcludeOutboundPorts
	KeyExcludeInterfaces        = annotation.ExcludeInterfaces
	KeyKubevirtInterfaces       = annotation.KubevirtInterfaces
	KeyRerouteVirtualInterfaces = annotation.RerouteVirtualInterfaces
	KeyAmbientRedirection       = annotation.AmbientRedirection
	KeyInitialize               = annotation.Initialize
	KeyEnvoyPort                = annotation.EnvoyPort
	KeyEnvoyUserID              = annotation.EnvoyUserID
	KeyEnvoyGroupID             = annotation.EnvoyGroupID
	KeyOpenShiftDeployer        = annotation.OpenShiftDeployer
	KeyOpenShiftBuild           = annotation.OpenShiftBuild
)

// Environment of the proxy container that is read, as in Istio's own plugin.
const (
	EnvDNSCapture   = "ISTIO_META_DNS_CAPTURE"
	EnvInvalidDrop  = "INVALID_DROP"
	EnvDisableEnvoy = "DISABLE_ENVOY"
)

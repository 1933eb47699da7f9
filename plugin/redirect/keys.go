package redirect

// Annotations and labels that are read. The istio.io ones are documented at
// https://istio.io/latest/docs/reference/config/annotations/ and labels/, the others come from the 2018 controller.
const (
	KeyStatus                   = "sidecar.istio.io/status" // written by Istio's injector: the pod has a sidecar
	KeyInject                   = "sidecar.istio.io/inject" // label wins over annotation; true or false
	KeyMode                     = "sidecar.istio.io/interceptionMode"
	KeyIncludeOutboundIPRanges  = trafficPrefix + "includeOutboundIPRanges"
	KeyExcludeOutboundIPRanges  = trafficPrefix + "excludeOutboundIPRanges"
	KeyIncludeInboundPorts      = trafficPrefix + "includeInboundPorts"
	KeyExcludeInboundPorts      = trafficPrefix + "excludeInboundPorts"
	KeyIncludeOutboundPorts     = trafficPrefix + "includeOutboundPorts"
	KeyExcludeOutboundPorts     = trafficPrefix + "excludeOutboundPorts"
	KeyExcludeInterfaces        = trafficPrefix + "excludeInterfaces"
	KeyKubevirtInterfaces       = trafficPrefix + "kubevirtInterfaces" // the older name of the next one
	KeyRerouteVirtualInterfaces = "istio.io/reroute-virtual-interfaces"
	KeyAmbientRedirection       = "ambient.istio.io/redirection"

	KeyInitialize   = "istio-pod-network-controller/initialize" // pod or namespace; true or false
	KeyEnvoyPort    = legacyPrefix + "envoy-port"
	KeyEnvoyUserID  = legacyPrefix + "envoy-userid"
	KeyEnvoyGroupID = legacyPrefix + "envoy-groupid"

	KeyOpenShiftDeployer = "openshift.io/deployer-pod-for.name"
	KeyOpenShiftBuild    = "openshift.io/build.name"

	trafficPrefix = "traffic.sidecar.istio.io/"
	legacyPrefix  = "pod-network-controller.istio.io/"
)

// Environment of the proxy container that is read, as in Istio's own plugin.
const (
	EnvDNSCapture   = "ISTIO_META_DNS_CAPTURE"
	EnvInvalidDrop  = "INVALID_DROP"
	EnvDisableEnvoy = "DISABLE_ENVOY"
)

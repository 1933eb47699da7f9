package annotation

// Annotations that are read; SidecarInject is a label too. Those of Istio are documented at
// https://istio.io/latest/docs/reference/config/annotations/ and labels/.
const (
	SidecarStatus            = "sidecar.istio.io/status" // written by Istio's injector: the pod has a sidecar
	SidecarInject            = "sidecar.istio.io/inject" // label wins over annotation; true or false
	InterceptionMode         = "sidecar.istio.io/interceptionMode"
	IncludeOutboundIPRanges  = TrafficPrefix + "includeOutboundIPRanges"
	ExcludeOutboundIPRanges  = TrafficPrefix + "excludeOutboundIPRanges"
	IncludeInboundPorts      = TrafficPrefix + "includeInboundPorts"
	ExcludeInboundPorts      = TrafficPrefix + "excludeInboundPorts"
	IncludeOutboundPorts     = TrafficPrefix + "includeOutboundPorts"
	ExcludeOutboundPorts     = TrafficPrefix + "excludeOutboundPorts"
	ExcludeInterfaces        = TrafficPrefix + "excludeInterfaces"
	KubevirtInterfaces       = TrafficPrefix + "kubevirtInterfaces" // the older name of the next one
	RerouteVirtualInterfaces = "istio.io/reroute-virtual-interfaces"
	AmbientRedirection       = "ambient.istio.io/redirection"
)

// The same settings under this controller's prefix. They count before Istio's, whose injector refuses a pod that has a
// range of ports or a prefix of interface names in one of its own.
const (
	OwnIncludeInboundPorts      = ControllerPrefix + "includeInboundPorts"
	OwnExcludeInboundPorts      = ControllerPrefix + "excludeInboundPorts"
	OwnIncludeOutboundPorts     = ControllerPrefix + "includeOutboundPorts"
	OwnExcludeOutboundPorts     = ControllerPrefix + "excludeOutboundPorts"
	OwnExcludeInterfaces        = ControllerPrefix + "excludeInterfaces"
	OwnRerouteVirtualInterfaces = ControllerPrefix + "rerouteVirtualInterfaces"
)

// Settings that Istio has variables of its sidecar for, and no annotation.
const (
	OwnIncludeOutboundOwnerGroups = ControllerPrefix + "includeOutboundOwnerGroups"
	OwnExcludeOutboundOwnerGroups = ControllerPrefix + "excludeOutboundOwnerGroups"
)

// Those of the 2018 controller.
const (
	Initialize   = "istio-pod-network-controller/initialize" // pod or namespace; true or false
	EnvoyPort    = ControllerPrefix + "envoy-port"
	EnvoyUserID  = ControllerPrefix + "envoy-userid"
	EnvoyGroupID = ControllerPrefix + "envoy-groupid"
)

// Those of pods that OpenShift itself starts.
const (
	OpenShiftDeployer = "openshift.io/deployer-pod-for.name"
	OpenShiftBuild    = "openshift.io/build.name"
)

package annotation

// Annotations that are read. SidecarInject is a label too. Istio documents its own at
// https://istio.io/latest/docs/reference/config/annotations/ and https://istio.io/latest/docs/reference/config/labels/.
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
	KubevirtInterfaces       = TrafficPrefix + "kubevirtInterfaces" // the older name of RerouteVirtualInterfaces
	RerouteVirtualInterfaces = "istio.io/reroute-virtual-interfaces"
	AmbientRedirection       = "ambient.istio.io/redirection"
)

// Settings under this controller's prefix that Istio has annotations for. They take precedence over Istio's: Istio's
// injector rejects a pod whose annotation has a range of ports or a prefix of interface names.
const (
	OwnIncludeInboundPorts      = ControllerPrefix + "includeInboundPorts"
	OwnExcludeInboundPorts      = ControllerPrefix + "excludeInboundPorts"
	OwnIncludeOutboundPorts     = ControllerPrefix + "includeOutboundPorts"
	OwnExcludeOutboundPorts     = ControllerPrefix + "excludeOutboundPorts"
	OwnExcludeInterfaces        = ControllerPrefix + "excludeInterfaces"
	OwnRerouteVirtualInterfaces = ControllerPrefix + "rerouteVirtualInterfaces"
)

// Settings for which Istio has no annotation, only environment variables of the sidecar.
const (
	OwnIncludeOutboundOwnerGroups = ControllerPrefix + "includeOutboundOwnerGroups"
	OwnExcludeOutboundOwnerGroups = ControllerPrefix + "excludeOutboundOwnerGroups"
)

// Annotations of the 2018 controller.
const (
	Initialize   = "istio-pod-network-controller/initialize" // pod or namespace; true or false
	EnvoyPort    = ControllerPrefix + "envoy-port"
	EnvoyUserID  = ControllerPrefix + "envoy-userid"
	EnvoyGroupID = ControllerPrefix + "envoy-groupid"
)

// Annotations of the pods that OpenShift itself creates.
const (
	OpenShiftDeployer = "openshift.io/deployer-pod-for.name"
	OpenShiftBuild    = "openshift.io/build.name"
)

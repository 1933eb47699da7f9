package explain

import "github.com/istio-pod-network/controller/plugin/redirect"

// asked is the text of a question.
type asked struct {
	text  string
	stops string // the answer that ends the decision: yes or no
}

// asks has the questions by reason; redirect.ReasonIncomplete has two.
var asks = map[redirect.Reason]asked{
	redirect.ReasonNotKubernetes:     {"Does the runtime name a pod?", no},
	redirect.ReasonNamespaceExcluded: {"Is its namespace excluded?", yes},
	redirect.ReasonOpenShiftDeployer: {"Is it an OpenShift deployer pod?", yes},
	redirect.ReasonOpenShiftBuild:    {"Is it an OpenShift build pod?", yes},
	redirect.ReasonOptedOut:          {"Has it opted out?", yes},
	redirect.ReasonInjectDisabled:    {"Is its injection disabled?", yes},
	redirect.ReasonAmbient:           {"Does ztunnel handle its traffic?", yes},
	redirect.ReasonOwnInit:           {"Does its istio-init write the rules?", yes},
	redirect.ReasonEnvoyDisabled:     {"Is Envoy disabled in its sidecar?", yes},
	redirect.ReasonProxyType:         {"Is its proxy not a sidecar?", yes},
	redirect.ReasonModeNone:          {"Is its interception mode NONE?", yes},
	redirect.ReasonNotInjected:       {"Is it injected, or has it opted in?", no},
	redirect.ReasonNotOptedIn:        {"Has it, or its namespace, opted in?", no},
	redirect.ReasonNoProxy:           {"Does it have a container istio-proxy?", no},
}

// unknowns are the questions of redirect.ReasonIncomplete in order.
var unknowns = []asked{{"Are its annotations known?", no}, {"Are its containers known?", no}}

// Answers.
const (
	yes    = "yes"
	no     = "no"
	unread = "invalid"
)

// reasonHostNetwork is for a pod with the node's network. The runtime makes none, so it never runs the plugin.
const reasonHostNetwork redirect.Reason = "host-network"

// meaning is what a reason means, and what to do if something else is intended.
type meaning struct{ is, next string }

const injectIt = "To have it in the mesh, let Istio inject it: label its namespace istio-injection=enabled (or " +
	"istio.io/rev=REVISION), and make the pod again."

// meanings has every possible reason.
var meanings = map[redirect.Reason]meaning{
	reasonHostNetwork: {"It has the network of its node (hostNetwork), so the runtime runs no CNI plugin for it.",
		"To have it in the mesh, it needs a network of its own: hostNetwork: false."},
	redirect.ReasonNotKubernetes: {"The runtime has named no pod: CNI_ARGS lacks its name or its namespace.",
		"Look at what calls the plugin: a container runtime of Kubernetes always names the pod."},
	redirect.ReasonNamespaceExcluded: {"The operator's excludeNamespaces has its namespace.",
		"To have the namespace in the mesh, take it out of excludeNamespaces."},
	redirect.ReasonOpenShiftDeployer: {"OpenShift makes it to deploy something. It never gets a sidecar.", ""},
	redirect.ReasonOpenShiftBuild:    {"OpenShift makes it to build something. It never gets a sidecar.", ""},
	redirect.ReasonOptedOut: {"Somebody has said so: istio-pod-network-controller/initialize is false.",
		"To have it in the mesh, remove that annotation, and make the pod again."},
	redirect.ReasonInjectDisabled: {"Somebody has said so: sidecar.istio.io/inject is false.",
		"To have it in the mesh, set that label to \"true\", and make the pod again."},
	redirect.ReasonAmbient: {"It is in Istio's ambient mesh: ztunnel takes its traffic.", ""},
	redirect.ReasonOwnInit: {"Its init container istio-init has NET_ADMIN and writes the rules itself.",
		"To have the plugin write them, set pilot.cni.enabled for Istio, and make the pod again."},
	redirect.ReasonEnvoyDisabled: {"Its sidecar runs without Envoy (DISABLE_ENVOY): nobody would take the traffic.",
		"To have it redirected, remove DISABLE_ENVOY, and make the pod again."},
	redirect.ReasonProxyType: {"Its proxy is not a sidecar but another kind, as a gateway's is.", ""},
	redirect.ReasonModeNone: {"Its interception mode is NONE: its apps call the sidecar by themselves.",
		"To have it redirected, set sidecar.istio.io/interceptionMode: REDIRECT, and make the pod again."},
	redirect.ReasonNotInjected: {"Istio's injector has not given it a sidecar: it has no annotation " +
		"sidecar.istio.io/status.", injectIt},
	redirect.ReasonNotOptedIn: {"With selection annotated, a pod or its namespace has to opt in, and neither has.",
		"To have it in the mesh, annotate it istio-pod-network-controller/initialize: \"true\", and make it again."},
	redirect.ReasonNoProxy: {"It is meant for the mesh and has no container istio-proxy: its init wait fails.", injectIt},
	redirect.ReasonForeignRules: {"Istio's CNI plugin or an istio-init has written rules before the plugin was run.",
		"To have the plugin write them, see docs/migration.md: one of the two has to go."},
	redirect.ReasonAgentAway: {"The runtime tells nothing of its annotations, and no agent answered (auxFailOpen).",
		"See whether the agent of its node is ready; then make the pod again."},
	redirect.ReasonInjected: {"Istio's injector has given it a sidecar.", ""},
	redirect.ReasonOptedIn:  {"It has opted in, or its namespace has.", ""},
	redirect.ReasonIncomplete: {"Its annotations are not known yet.",
		"See whether the agent of its node is ready: the plugin asks it."},
}

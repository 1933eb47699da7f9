package redirect

import (
	"strconv"

	"github.com/istio-pod-network/controller/plugin/annotation"
)

// Verdict is the outcome of a decision.
type Verdict string

// The verdicts.
const (
	Redirect  Verdict = "redirect"  // write the rules of Decision.Spec
	Untouched Verdict = "untouched" // leave the network namespace alone
	Ask       Verdict = "ask"       // the agent's facts are needed, whether there is an agent or not
)

// Reason says why, in one word for logs, metrics and records.
type Reason string

// The reasons, in the order in which they are looked for; the last is that of the verdict Ask.
const (
	ReasonNotKubernetes     Reason = "not-kubernetes"      // CNI_ARGS name no pod
	ReasonNamespaceExcluded Reason = "namespace-excluded"  // excludeNamespaces
	ReasonOpenShiftDeployer Reason = "openshift-deployer"  // a deployer pod, it never gets a sidecar
	ReasonOpenShiftBuild    Reason = "openshift-build"     // a build pod, likewise
	ReasonOptedOut          Reason = "opted-out"           // initialize: "false" on the pod; see Policy.namespaceSays
	ReasonInjectDisabled    Reason = "inject-disabled"     // sidecar.istio.io/inject is false
	ReasonAmbient           Reason = "ambient"             // ztunnel has the traffic
	ReasonOwnInit           Reason = "own-init"            // its istio-init has NET_ADMIN and writes the rules
	ReasonEnvoyDisabled     Reason = "envoy-disabled"      // DISABLE_ENVOY in the proxy container
	ReasonProxyType         Reason = "proxy-type"          // the proxy is a gateway, not a sidecar
	ReasonModeNone          Reason = "mode-none"           // interception mode NONE
	ReasonNotInjected       Reason = "not-injected"        // selection injected: no status annotation and not opted in
	ReasonNotOptedIn        Reason = "not-opted-in"        // selection annotated: neither pod nor namespace opted in
	ReasonNoProxy           Reason = annotation.NoProxy    // meant for the mesh, but there is no proxy container
	ReasonForeignRules      Reason = "foreign-rules"       // Istio CNI or an istio-init has written rules already
	ReasonAgentAway         Reason = "agent-away"          // auxFailOpen: no agent answers, nothing is known
	ReasonInjected          Reason = "injected"            // redirected: Istio's injector gave it a sidecar
	ReasonOptedIn           Reason = "opted-in"            // redirected: initialize: "true"
	ReasonIncomplete        Reason = "annotations-unknown" // ask: annotations are missing, or containers
)

// Reasons lists every reason, for completeness tests and documentation.
var Reasons = []Reason{
	ReasonNotKubernetes, ReasonNamespaceExcluded, ReasonOpenShiftDeployer, ReasonOpenShiftBuild, ReasonOptedOut,
	ReasonInjectDisabled, ReasonAmbient, ReasonOwnInit, ReasonEnvoyDisabled, ReasonProxyType, ReasonModeNone,
	ReasonNotInjected, ReasonNotOptedIn, ReasonNoProxy, ReasonForeignRules, ReasonAgentAway, ReasonInjected, ReasonOptedIn,
	ReasonIncomplete,
}

// Decision is what to do with a pod and why.
type Decision struct {
	Verdict Verdict
	Reason  Reason
	Spec    Spec // settings of the redirection; zero unless Verdict is Redirect
	// MeshAnnotated says that somebody meant the pod for the mesh, so that leaving it untouched is worth a record.
	MeshAnnotated bool
}

// Decide says whether the pod's traffic goes through its sidecar, with the settings that apply to it. It is pure. The
// error, for which IsInvalid holds, names the annotation of a mesh pod that cannot be read, or the container whose user
// it must not have; such a pod must not start. With an error the verdict is Redirect where all else shows the pod to be
// in the mesh, and otherwise empty.
func Decide(pod Pod, policy Policy) (Decision, error) {
	verdict, reason, err := classify(pod, policy)
	if err != nil {
		return Decision{}, err
	}
	decision := Decision{Verdict: verdict, Reason: reason, MeshAnnotated: pod.meshAnnotated()}
	if verdict == Redirect {
		if decision.Spec, err = policy.Redirect.withPod(pod, pod.proxy()); err != nil {
			return decision, err
		}
		if shared := pod.SharesProxyUser(decision.Spec); shared != nil && policy.SharedProxyUser == SharedRefuse {
			return decision, shared
		}
	}
	return decision, nil
}

// classify is Decide without the settings.
func classify(pod Pod, policy Policy) (Verdict, Reason, error) {
	switch {
	case pod.Namespace == "" || pod.Name == "":
		return Untouched, ReasonNotKubernetes, nil
	case policy.ExcludeNamespaces.Match(pod.Namespace):
		return Untouched, ReasonNamespaceExcluded, nil
	case pod.Annotations == nil && !pod.Complete:
		return Ask, ReasonIncomplete, nil
	}
	if reason := exemptOnOpenShift(pod); reason != "" {
		return Untouched, reason, nil
	}
	own, err := pod.ownAnswer()
	if err != nil {
		return "", "", err
	}
	if reason := exempt(pod, policy, own); reason != "" {
		return Untouched, reason, nil
	}
	return selected(pod, policy, own)
}

// exemptOnOpenShift knows the pods that OpenShift itself starts in a project.
func exemptOnOpenShift(pod Pod) Reason {
	if _, present := pod.Annotations[annotation.OpenShiftDeployer]; present {
		return ReasonOpenShiftDeployer
	}
	if _, present := pod.Annotations[annotation.OpenShiftBuild]; present {
		return ReasonOpenShiftBuild
	}
	return ""
}

// exempt returns why the pod is left alone whatever the selection, "" if nothing exempts it.
func exempt(pod Pod, policy Policy, own answer) Reason {
	switch {
	case own == no, own == noAnswer && policy.namespaceSays(pod, no):
		return ReasonOptedOut
	case pod.injectDisabled():
		return ReasonInjectDisabled
	case pod.Annotations[annotation.AmbientRedirection] == "enabled":
		return ReasonAmbient
	}
	if reason := exemptByContainers(pod); reason != "" {
		return reason
	}
	if mode, known := pod.mode(policy); known && mode == ModeNone {
		return ReasonModeNone
	}
	return ""
}

// exemptByContainers looks at the containers, as far as they are known.
func exemptByContainers(pod Pod) Reason {
	for _, c := range pod.InitContainers {
		// An init wait may carry the name istio-init; without NET_ADMIN it cannot be the one that writes the rules.
		if c.Name == InitContainer && c.NetAdmin {
			return ReasonOwnInit
		}
	}
	proxy := pod.proxy()
	if proxy == nil {
		return ""
	}
	if disabled, err := strconv.ParseBool(proxy.Env[EnvDisableEnvoy]); err == nil && disabled {
		return ReasonEnvoyDisabled
	}
	if len(proxy.Args) >= 2 && proxy.Args[0] == "proxy" && proxy.Args[1] != "sidecar" {
		return ReasonProxyType
	}
	return ""
}

// selected decides about a pod that nothing exempts.
func selected(pod Pod, policy Policy, own answer) (Verdict, Reason, error) {
	reason := ReasonOptedIn
	switch {
	case own == yes:
	case policy.Selection == SelectInjected:
		if !pod.injected() {
			return Untouched, ReasonNotInjected, nil
		}
		reason = ReasonInjected
	case !pod.Complete && policy.Agent:
		return Ask, ReasonIncomplete, nil
	default:
		namespace, err := pod.namespaceAnswer()
		if err != nil && pod.Complete && pod.proxy() == nil {
			return Untouched, ReasonNotOptedIn, nil // a pod without a sidecar pays for no typo of its namespace
		}
		if err != nil {
			return "", "", err
		}
		if namespace != yes {
			return Untouched, ReasonNotOptedIn, nil
		}
	}
	switch {
	case !pod.Complete && policy.Agent:
		return Ask, ReasonIncomplete, nil
	case pod.Complete && pod.proxy() == nil:
		return Untouched, ReasonNoProxy, nil
	}
	return Redirect, reason, nil
}

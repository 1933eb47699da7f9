package redirect

import "github.com/istio-pod-network/controller/plugin/annotation"

// Verdict is the outcome of a decision.
type Verdict string

// The verdicts.
const (
	Redirect  Verdict = "redirect"  // write the rules of Decision.Spec
	Untouched Verdict = "untouched" // leave the network namespace alone
	Ask       Verdict = "ask"       // the agent has to be asked, even if there is none
)

// Reason says why, in one word for logs, metrics and records.
type Reason string

// The reasons, in the order in which Decide checks them. The last one is that of the verdict Ask.
const (
	ReasonNotKubernetes     Reason = "not-kubernetes"      // CNI_ARGS has no pod
	ReasonNamespaceExcluded Reason = "namespace-excluded"  // excludeNamespaces
	ReasonOpenShiftDeployer Reason = "openshift-deployer"  // a deployer pod of OpenShift; it never gets a sidecar
	ReasonOpenShiftBuild    Reason = "openshift-build"     // a build pod of OpenShift; it never gets a sidecar
	ReasonOptedOut          Reason = "opted-out"           // initialize: "false"; see Policy.namespaceSays
	ReasonInjectDisabled    Reason = "inject-disabled"     // sidecar.istio.io/inject is false
	ReasonAmbient           Reason = "ambient"             // ztunnel captures the traffic
	ReasonOwnInit           Reason = "own-init"            // its istio-init has NET_ADMIN and writes the rules
	ReasonEnvoyDisabled     Reason = "envoy-disabled"      // DISABLE_ENVOY in the proxy container
	ReasonProxyType         Reason = "proxy-type"          // the proxy is a gateway, not a sidecar
	ReasonModeNone          Reason = "mode-none"           // interception mode NONE
	ReasonNotInjected       Reason = "not-injected"        // selection injected: no status annotation, and not opted in
	ReasonNotOptedIn        Reason = "not-opted-in"        // selection annotated: neither pod nor namespace opted in
	ReasonNoProxy           Reason = annotation.NoProxy    // the pod is meant for the mesh, but has no proxy container
	ReasonForeignRules      Reason = "foreign-rules"       // Istio CNI or istio-init has already written rules
	ReasonAgentAway         Reason = "agent-away"          // auxFailOpen: the agent does not answer, and nothing is known
	ReasonInjected          Reason = "injected"            // redirected: Istio's injector added a sidecar
	ReasonOptedIn           Reason = "opted-in"            // redirected: the pod, or its namespace, has initialize: "true"
	ReasonIncomplete        Reason = "annotations-unknown" // ask: annotations or containers are unknown
)

// Reasons lists every reason, for documentation and for tests that check completeness.
var Reasons = []Reason{
	ReasonNotKubernetes, ReasonNamespaceExcluded, ReasonOpenShiftDeployer, ReasonOpenShiftBuild, ReasonOptedOut,
	ReasonInjectDisabled, ReasonAmbient, ReasonOwnInit, ReasonEnvoyDisabled, ReasonProxyType, ReasonModeNone,
	ReasonNotInjected, ReasonNotOptedIn, ReasonNoProxy, ReasonForeignRules, ReasonAgentAway, ReasonInjected, ReasonOptedIn,
	ReasonIncomplete,
}

// Decision says what to do with a pod, and why.
type Decision struct {
	Verdict Verdict
	Reason  Reason
	Spec    Spec // the settings of the redirection; zero unless Verdict is Redirect
	// MeshAnnotated says that the pod has an annotation that means it for the mesh. If it is left untouched, it gets a
	// record.
	MeshAnnotated bool
}

// Decide decides whether the pod's traffic is redirected through its sidecar, and by which settings. It is a pure
// function. An error names an invalid annotation of a mesh pod, or a container that runs as the sidecar's user although
// sharedProxyUser is refuse; IsInvalid holds for it, and the pod must not start. With an error, the verdict is Redirect
// if everything else shows that the pod is in the mesh, and empty otherwise.
func Decide(pod Pod, policy Policy) (Decision, error) { return decide(&pod, &policy, nil) }

// decide does the work of Decide. It calls note, unless that is nil, after every question.
func decide(pod *Pod, policy *Policy, note noteAnswer) (Decision, error) {
	verdict, reason, err := classify(pod, policy, note)
	if err != nil {
		return Decision{}, err
	}
	decision := Decision{Verdict: verdict, Reason: reason, MeshAnnotated: pod.meshAnnotated()}
	if verdict == Redirect {
		if decision.Spec, err = policy.Redirect.withPod(*pod, pod.proxy()); err != nil {
			return decision, err
		}
		if shared := pod.SharesProxyUser(decision.Spec); shared != nil && policy.SharedProxyUser == SharedRefuse {
			return decision, shared
		}
	}
	return decision, nil
}

// classify decides without the settings: it asks the questions in their order until one ends the decision.
func classify(pod *Pod, policy *Policy, note noteAnswer) (Verdict, Reason, error) {
	c := inquiry{pod: pod, policy: policy, proxy: pod.proxy(), redirected: ReasonOptedIn}
	for i := range questions {
		q := &questions[i]
		if q.only != "" && q.only != policy.Selection {
			continue
		}
		verdict := q.ask(&c)
		if note != nil {
			note(q, &c, verdict)
		}
		switch {
		case c.err != nil:
			return "", "", c.err
		case verdict == Ask:
			return Ask, ReasonIncomplete, nil
		case verdict != "":
			return verdict, q.reason, nil
		}
	}
	return Redirect, c.redirected, nil
}

package redirect

import "github.com/istio-pod-network/controller/plugin/annotation"

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
func Decide(pod Pod, policy Policy) (Decision, error) { return decide(&pod, &policy, nil) }

// decide is Decide that calls note, unless it is nil, with every question that was asked.
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

// classify is decide without the settings: it asks the questions in their order until one ends it.
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

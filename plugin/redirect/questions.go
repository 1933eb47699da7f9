package redirect

import (
	"strconv"

	"github.com/istio-pod-network/controller/plugin/annotation"
)

// question is one that a decision asks about a pod.
type question struct {
	reason Reason    // of the verdict, where the answer ends the decision
	only   Selection // with which it is asked; "": with every
	ask    func(*inquiry) finding
}

// questions are all, in the order in which they are asked. A pod for which none ends the decision is redirected.
var questions = [...]question{
	{ReasonNotKubernetes, "", (*inquiry).notKubernetes},
	{ReasonNamespaceExcluded, "", (*inquiry).namespaceExcluded},
	{ReasonIncomplete, "", (*inquiry).annotationsUnknown},
	{ReasonOpenShiftDeployer, "", (*inquiry).openShiftDeployer},
	{ReasonOpenShiftBuild, "", (*inquiry).openShiftBuild},
	{ReasonOptedOut, "", (*inquiry).optedOut},
	{ReasonInjectDisabled, "", (*inquiry).injectDisabled},
	{ReasonAmbient, "", (*inquiry).ambient},
	{ReasonOwnInit, "", (*inquiry).ownInit},
	{ReasonEnvoyDisabled, "", (*inquiry).envoyDisabled},
	{ReasonProxyType, "", (*inquiry).proxyType},
	{ReasonModeNone, "", (*inquiry).modeNone},
	{ReasonNotInjected, SelectInjected, (*inquiry).notInjected},
	{ReasonNotOptedIn, SelectAnnotated, (*inquiry).notOptedIn},
	{ReasonIncomplete, "", (*inquiry).containersUnknown},
	{ReasonNoProxy, "", (*inquiry).noProxy},
}

// inquiry is a decision that is being made.
type inquiry struct {
	pod        *Pod
	policy     *Policy
	proxy      *Container // the sidecar, if it is known
	own        answer     // the pod's own opt-in
	redirected Reason     // for which the pod is redirected if no question ends the decision
}

// finding is what a question came to.
type finding struct {
	verdict Verdict // "": the decision goes on
	from    Origin  // where the answer stands; zero: nowhere, so the decision goes on
	err     error   // what stands there cannot be read
}

// untouched ends the decision if that holds.
func untouched(holds bool, from Origin) finding {
	if holds {
		return finding{verdict: Untouched, from: from}
	}
	return finding{from: from}
}

// annotated is the annotation as an origin; zero where there is none.
func (c *inquiry) annotated(key string) (from Origin, present bool) {
	value, present := c.pod.Annotations[key]
	if present {
		from = Origin{Kind: OfAnnotation, Name: key, Value: value}
	}
	return from, present
}

func (c *inquiry) notKubernetes() finding {
	return untouched(c.pod.Namespace == "" || c.pod.Name == "", Origin{Kind: OfRuntime, Name: "CNI_ARGS"})
}

func (c *inquiry) namespaceExcluded() finding {
	return untouched(c.policy.ExcludeNamespaces.Match(c.pod.Namespace), Origin{Kind: OfConfig, Name: "excludeNamespaces"})
}

func (c *inquiry) annotationsUnknown() finding {
	if c.pod.Annotations == nil && !c.pod.Complete {
		return finding{verdict: Ask, from: Origin{Kind: OfRuntime, Name: "annotations"}}
	}
	return finding{}
}

// OpenShift itself starts these pods in a project.
func (c *inquiry) openShiftDeployer() finding {
	from, present := c.annotated(annotation.OpenShiftDeployer)
	return untouched(present, from)
}

func (c *inquiry) openShiftBuild() finding {
	from, present := c.annotated(annotation.OpenShiftBuild)
	return untouched(present, from)
}

// optedOut reads the pod's own answer first, which later questions go by, too.
func (c *inquiry) optedOut() finding {
	from, _ := c.annotated(annotation.Initialize)
	var err error
	if c.own, err = c.pod.ownAnswer(); err != nil {
		return finding{from: from, err: err}
	}
	if c.own == noAnswer && c.policy.namespaceSays(*c.pod, no) {
		return finding{verdict: Untouched, from: c.pod.namespaceOrigin()}
	}
	return untouched(c.own == no, from)
}

func (c *inquiry) injectDisabled() finding { return untouched(c.pod.injectDisabled()) }

func (c *inquiry) ambient() finding {
	from, _ := c.annotated(annotation.AmbientRedirection)
	return untouched(from.Value == "enabled", from)
}

func (c *inquiry) ownInit() finding {
	for _, container := range c.pod.InitContainers {
		// An init wait may carry the name istio-init; without NET_ADMIN it cannot be the one that writes the rules.
		if container.Name == InitContainer {
			from := Origin{Kind: OfContainer, Of: InitContainer, Name: "securityContext"}
			if container.NetAdmin {
				from.Value = "NET_ADMIN"
				return finding{verdict: Untouched, from: from}
			}
			return finding{from: from}
		}
	}
	return finding{}
}

func (c *inquiry) envoyDisabled() finding {
	from, present := c.proxy.variable(EnvDisableEnvoy)
	disabled, err := strconv.ParseBool(from.Value)
	return untouched(present && err == nil && disabled, from)
}

func (c *inquiry) proxyType() finding {
	if c.proxy == nil || len(c.proxy.Args) < 2 || c.proxy.Args[0] != "proxy" {
		return finding{}
	}
	kind := c.proxy.Args[1]
	return untouched(kind != "sidecar", Origin{Kind: OfContainer, Of: ProxyContainer, Name: "args", Value: kind})
}

func (c *inquiry) modeNone() finding {
	mode, known, from := c.pod.mode(*c.policy)
	return untouched(known && mode == ModeNone, from)
}

// notInjected is asked with the selection by injection. A pod that has opted in itself needs no injection.
func (c *inquiry) notInjected() finding {
	if c.own == yes {
		from, _ := c.annotated(annotation.Initialize)
		return finding{from: from}
	}
	c.redirected = ReasonInjected
	from, present := c.annotated(annotation.SidecarStatus)
	return untouched(!present, from)
}

// notOptedIn is asked with the selection by annotation.
func (c *inquiry) notOptedIn() finding {
	if c.own == yes {
		from, _ := c.annotated(annotation.Initialize)
		return finding{from: from}
	}
	if c.unanswered() {
		return finding{verdict: Ask}
	}
	namespace, err := c.pod.namespaceAnswer()
	if err != nil && (!c.pod.Complete || c.proxy != nil) {
		return finding{from: c.pod.namespaceOrigin(), err: err}
	}
	// A pod without a sidecar pays for no typo of its namespace.
	return untouched(namespace != yes, c.pod.namespaceOrigin())
}

// unanswered reports whether the agent is to be asked for what the runtime does not know.
func (c *inquiry) unanswered() bool { return !c.pod.Complete && c.policy.Agent }

func (c *inquiry) containersUnknown() finding {
	if c.unanswered() {
		return finding{verdict: Ask, from: Origin{Kind: OfRuntime, Name: "containers"}}
	}
	return finding{}
}

func (c *inquiry) noProxy() finding {
	if c.proxy == nil {
		return untouched(c.pod.Complete, Origin{})
	}
	return finding{from: Origin{Kind: OfContainer, Of: ProxyContainer}}
}

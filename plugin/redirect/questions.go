package redirect

import (
	"strconv"

	"github.com/istio-pod-network/controller/plugin/annotation"
)

// question is one question that a decision asks about a pod.
type question struct {
	reason Reason    // the reason of the verdict, if the answer ends the decision
	only   Selection // the selection with which it is asked; empty: with each
	ask    func(*inquiry) Verdict
}

// questions are all questions, in their order. If none ends the decision, the pod is redirected.
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

// inquiry is a decision in progress.
type inquiry struct {
	pod        *Pod
	policy     *Policy
	proxy      *Container // the sidecar, if it is known
	own        answer     // the pod's own opt-in
	redirected Reason     // the reason if no question ends the decision
	err        error      // the value that the last question read is invalid
}

// noteAnswer is called after a question, with its verdict. An empty verdict means that the decision goes on.
type noteAnswer func(*question, *inquiry, Verdict)

// untouched ends the decision if holds is true.
func untouched(holds bool) Verdict {
	if holds {
		return Untouched
	}
	return ""
}

// annotated reports whether the pod has the annotation.
func (c *inquiry) annotated(key string) bool {
	_, present := c.pod.Annotations[key]
	return present
}

func (c *inquiry) notKubernetes() Verdict {
	return untouched(c.pod.Namespace == "" || c.pod.Name == "")
}

func (c *inquiry) namespaceExcluded() Verdict {
	return untouched(c.policy.ExcludeNamespaces.Match(c.pod.Namespace))
}

func (c *inquiry) annotationsUnknown() Verdict {
	if c.pod.Annotations == nil && !c.pod.Complete {
		return Ask
	}
	return ""
}

// OpenShift itself creates these pods.
func (c *inquiry) openShiftDeployer() Verdict {
	return untouched(c.annotated(annotation.OpenShiftDeployer))
}
func (c *inquiry) openShiftBuild() Verdict { return untouched(c.annotated(annotation.OpenShiftBuild)) }

// optedOut reads the pod's own opt-in, and keeps it for later questions.
func (c *inquiry) optedOut() Verdict {
	c.own, c.err = c.pod.ownAnswer()
	return untouched(c.own == no || c.own == noAnswer && c.policy.namespaceSays(c.pod, no))
}

func (c *inquiry) injectDisabled() Verdict { return untouched(c.pod.injectDisabled()) }

func (c *inquiry) ambient() Verdict {
	return untouched(c.pod.Annotations[annotation.AmbientRedirection] == "enabled")
}

func (c *inquiry) ownInit() Verdict {
	for i := range c.pod.InitContainers {
		// A container named istio-init without NET_ADMIN cannot write rules: it is an init wait.
		if init := &c.pod.InitContainers[i]; init.Name == InitContainer && init.NetAdmin {
			return Untouched
		}
	}
	return ""
}

func (c *inquiry) envoyDisabled() Verdict {
	if c.proxy == nil {
		return ""
	}
	disabled, err := strconv.ParseBool(c.proxy.Env[EnvDisableEnvoy])
	return untouched(err == nil && disabled)
}

func (c *inquiry) proxyType() Verdict {
	return untouched(c.proxy != nil && len(c.proxy.Args) >= 2 && c.proxy.Args[0] == "proxy" &&
		c.proxy.Args[1] != "sidecar")
}

func (c *inquiry) modeNone() Verdict {
	mode, known := c.pod.mode(c.policy)
	return untouched(known && mode == ModeNone)
}

// notInjected is asked with the selection injected. A pod that has opted in itself does not need to be injected.
func (c *inquiry) notInjected() Verdict {
	if c.own == yes {
		return ""
	}
	c.redirected = ReasonInjected
	return untouched(!c.pod.injected())
}

// notOptedIn is asked with the selection annotated.
func (c *inquiry) notOptedIn() Verdict {
	if c.own == yes {
		return ""
	}
	if verdict := c.containersUnknown(); verdict != "" {
		return verdict
	}
	namespace, err := c.pod.namespaceAnswer()
	if !c.pod.Complete || c.proxy != nil { // without a sidecar the namespace's error does not matter
		c.err = err
	}
	return untouched(namespace != yes)
}

// containersUnknown makes the plugin ask the agent for the containers, which the runtime does not pass.
func (c *inquiry) containersUnknown() Verdict {
	if !c.pod.Complete && c.policy.Agent {
		return Ask
	}
	return ""
}

func (c *inquiry) noProxy() Verdict { return untouched(c.pod.Complete && c.proxy == nil) }

package redirect

import (
	"strconv"

	"github.com/istio-pod-network/controller/plugin/annotation"
)

// question is one that a decision asks about a pod.
type question struct {
	reason Reason    // of the verdict, where the answer ends the decision
	only   Selection // with which it is asked; "": with every
	ask    func(*inquiry) Verdict
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
	err        error      // what the last question was about cannot be read
}

// noteAnswer takes note of a question that was asked, and of the verdict, "" where the decision goes on.
type noteAnswer func(*question, *inquiry, Verdict)

// untouched ends the decision if that holds.
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

// OpenShift itself starts these pods in a project.
func (c *inquiry) openShiftDeployer() Verdict {
	return untouched(c.annotated(annotation.OpenShiftDeployer))
}
func (c *inquiry) openShiftBuild() Verdict { return untouched(c.annotated(annotation.OpenShiftBuild)) }

// optedOut reads the pod's own answer, which later questions go by, too.
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
		// An init wait may carry the name istio-init; without NET_ADMIN it cannot be the one that writes the rules.
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

// notInjected is asked with the selection by injection. A pod that has opted in itself needs no injection.
func (c *inquiry) notInjected() Verdict {
	if c.own == yes {
		return ""
	}
	c.redirected = ReasonInjected
	return untouched(!c.pod.injected())
}

// notOptedIn is asked with the selection by annotation.
func (c *inquiry) notOptedIn() Verdict {
	if c.own == yes {
		return ""
	}
	if verdict := c.containersUnknown(); verdict != "" {
		return verdict
	}
	namespace, err := c.pod.namespaceAnswer()
	if !c.pod.Complete || c.proxy != nil { // a pod without a sidecar pays for no typo of its namespace
		c.err = err
	}
	return untouched(namespace != yes)
}

// containersUnknown has the agent asked for what the runtime does not know.
func (c *inquiry) containersUnknown() Verdict {
	if !c.pod.Complete && c.policy.Agent {
		return Ask
	}
	return ""
}

func (c *inquiry) noProxy() Verdict { return untouched(c.pod.Complete && c.proxy == nil) }

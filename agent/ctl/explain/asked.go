package explain

import (
	"context"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	corev1 "k8s.io/api/core/v1"
)

// askTimeout limits one question, because an agent or kubelet may hang.
const askTimeout = 20 * time.Second

// ask asks the agent of the pod's node.
func (l *Live) ask(ctx context.Context, from Source, its agent, pod *corev1.Pod) {
	const what = "record and rules"
	switch {
	case l.Node == "":
		return
	case its.err != nil:
		l.miss(what, "the verb list on pods in the agents' namespace", its.err)
		l.unasked = cluster.NextUnlisted(its.err)
		return
	case its.pod == nil:
		l.NotLookedAt = append(l.NotLookedAt, what+": no agent runs on "+l.Node)
		l.unasked = cluster.NextNoAgent
		return
	}
	l.Agent = its.pod.Namespace + "/" + its.pod.Name
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	switch told, err := from.AskPod(ctx, *its.pod, pod.Namespace, pod.Name); {
	case cluster.CannotAnswer(err):
		l.NotLookedAt = append(l.NotLookedAt, what+": the agent is of a release that cannot tell")
		l.unasked = cluster.NextCannotAnswer
	case err != nil:
		l.miss(what, cluster.RightToAsk(its.pod.Namespace), err)
		l.unasked = cluster.NextUnasked(its.pod.Namespace, err)
	case told.UID != "" && told.UID != string(pod.UID):
		l.NotLookedAt = append(l.NotLookedAt, what+": the agent still sees an earlier pod of this name")
		l.unasked = "Look again in a moment."
	default:
		l.told, l.Record, l.Rules = &told, told.Record, &told.Rules
	}
}

// judgeUnasked adds a finding that the agent could not be asked, if it knows something of the pod: a redirected pod, or
// one with a mark. Other pods have neither a record nor rules.
func (e *Explanation) judgeUnasked() {
	l := e.Live
	if l.told != nil || e.Verdict != Redirected && l.Mark == nil {
		return
	}
	what := "its record and its rules could not be asked for"
	if l.Mark == nil {
		what += ", and it carries no mark"
	}
	l.find(NotAsked, what, l.unasked)
}

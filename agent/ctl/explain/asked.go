package explain

import (
	"context"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	corev1 "k8s.io/api/core/v1"
)

// askTimeout bounds one question to an agent or a kubelet that hangs.
const askTimeout = 20 * time.Second

// ask asks the agent of the pod's node.
func (l *Live) ask(ctx context.Context, from Source, its agent, pod *corev1.Pod) {
	const what = "record and rules"
	switch {
	case l.Node == "":
		return
	case its.err != nil:
		l.miss(what, "the verb list on pods in the agents' namespace", its.err)
		return
	case its.pod == nil:
		l.NotLookedAt = append(l.NotLookedAt, what+": no agent runs on "+l.Node)
		return
	}
	l.Agent = its.pod.Namespace + "/" + its.pod.Name
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	switch told, err := from.AskPod(ctx, *its.pod, pod.Namespace, pod.Name); {
	case cluster.CannotAnswer(err):
		l.NotLookedAt = append(l.NotLookedAt, what+": the agent is of a release that cannot tell; upgrade it to the "+
			"release of this tool")
	case err != nil:
		l.miss(what, "the verbs get and create on pods/exec in "+its.pod.Namespace, err)
	case told.UID != "" && told.UID != string(pod.UID):
		l.NotLookedAt = append(l.NotLookedAt, what+": the agent still sees an earlier pod of this name; look again")
	default:
		l.told, l.Record, l.Rules = &told, told.Record, &told.Rules
	}
}

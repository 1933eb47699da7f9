package explain

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
)

// find adds a finding about what is not well, or not known.
func (l *Live) find(state State, what, next string) {
	l.State = l.State.With(state)
	l.verdicts = append(l.verdicts, state)
	l.Findings = append(l.Findings, output.Finding{What: what, Next: next})
}

// note adds what is well but worth knowing.
func (l *Live) note(format string, args ...any) {
	l.Notes = append(l.Notes, fmt.Sprintf(format, args...))
}

// again returns a command that deletes the pod, so that its controller makes it again.
func (e *Explanation) again() string {
	return fmt.Sprintf("Make it again: kubectl -n %s delete pod %s.", e.Namespace, e.Name)
}

// described returns the command that shows what kubelet and runtime do with the pod.
func (e *Explanation) described() string {
	return fmt.Sprintf("kubectl -n %s describe pod %s", e.Namespace, e.Name)
}

// judge computes the pod's state from everything that was found.
func (e *Explanation) judge(now time.Time) {
	l := e.Live
	l.State = Well
	switch {
	case l.over:
		l.note("it has ended, or is being deleted: its network is not looked at")
		return
	case e.pod.Spec.HostNetwork:
		return
	case e.Verdict == Refused:
		l.find(NotWell, "it is refused, unless it has been changed since its network was made", e.Next)
		e.Next = ""
	case e.Reason == string(redirect.ReasonNoProxy):
		l.find(NotWell, "it is meant for the mesh and has no sidecar", e.Next)
		e.Next = ""
	}
	e.judgeInjection()
	if l.Record == nil && (l.Mark == nil || l.Node == "") && len(e.pod.Status.PodIPs) == 0 {
		e.judgeUnmade()
		return
	}
	e.judgeRecord()
	e.judgeMark()
	e.judgeRules()
	e.judgeUnasked()
	e.judgeWait(now)
}

// sandboxFailed is the reason of the kubelet's Event if the network cannot be made.
const sandboxFailed = "FailedCreatePodSandBox"

// judgeUnmade judges a pod without a network.
func (e *Explanation) judgeUnmade() {
	l := e.Live
	for _, event := range slices.Backward(l.Events) {
		if event.Reason == sandboxFailed {
			l.find(NotWell, "its network cannot be made: "+event.Message, "The kubelet tries it again. What the text means "+
				"stands in docs/troubleshooting.md, \"A pod's network cannot be made\".")
			return
		}
	}
	l.find(NotAsked, "its network is not made yet", "Look again when it has an address: "+e.described())
}

// byOperator are the reasons that come from the operator's settings.
var byOperator = map[string]bool{
	string(redirect.ReasonNamespaceExcluded): true, string(redirect.ReasonNotOptedIn): true,
}

// judgeRecord compares the record with the present decision.
func (e *Explanation) judgeRecord() {
	l := e.Live
	redirected := e.Verdict == Redirected
	switch r := l.Record; {
	case l.told != nil && l.told.UID == "":
		l.find(NotAsked, "the agent of its node does not know it", "Look again. If it stays so, see whether that agent is "+
			"ready: istio-pod-networkctl status")
	case r == nil:
		e.judgeUnrecorded(redirected)
	case r.Decision == record.Redirect && !redirected:
		l.note("it was in the mesh when its network was made (%s): its rules stay until it is made again", r.Reason)
	case r.Decision == record.Untouched && redirected && l.assumed && byOperator[r.Reason]:
		l.find(NotAsked, fmt.Sprintf("it was left untouched when its network was made (%s), and the operator's settings, "+
			"which say whether it still would be, could not be read", r.Reason),
			onceRead)
	case r.Decision == record.Untouched && redirected:
		meaning := meanings[redirect.Reason(r.Reason)].is
		l.find(NotWell, strings.TrimSpace(fmt.Sprintf("it was left untouched when its network was made (%s). %s", r.Reason,
			meaning)), e.again())
	}
}

// judgeUnrecorded judges a pod with a network and without a record, as far as is known.
func (e *Explanation) judgeUnrecorded(redirected bool) {
	l := e.Live
	switch told := l.told; {
	case !redirected, told == nil:
	case told.Bypassed:
		l.find(NotWell, "it bypasses the mesh: its network was made without the plugin", e.again()+" Its Events say whether "+
			"the runtime did not run the plugin, or there was none; istio-pod-networkctl status says how it is now.")
	case told.Outside:
		l.find(NotWell, "it is outside the mesh: its network was made before what is said now", e.again())
	default:
		l.find(NotWell, "it has a network, and no record says that its rules were written", "Look again in a moment. If it "+
			"stays so: "+e.again())
	}
}

// judgeMark compares the mark with the record.
func (e *Explanation) judgeMark() {
	l := e.Live
	if l.told == nil {
		return
	}
	const pasted = "take the marks out of the pod's template; the agent marks each new sandbox by itself. "
	status := annotation.NotRequired
	if l.redirects() {
		status = annotation.Initialized
	}
	switch m, r := l.Mark, l.Record; {
	case r == nil && m != nil:
		l.find(NotWell, "it carries a mark, and no record on its node says so: the mark was copied, and proves nothing",
			"If it stays so, "+pasted+e.again())
	case r == nil:
	case m == nil:
		l.find(NotWell, "it is not marked, although the record is there", "Look again in a moment. If it stays so, its "+
			"Events say why, or the agent's log: "+e.agentsLog())
	case m.NetNS != r.NetNS:
		l.find(NotWell, fmt.Sprintf("its mark is bound to network namespace %s, and its network is %s", m.NetNS, r.NetNS),
			"Look again in a moment: a new sandbox is marked anew. If it stays so, "+pasted)
	case m.Status != status:
		l.find(NotWell, fmt.Sprintf("its mark says %q, and the record means %q", m.Status, status),
			"Look again in a moment. If it stays so, see the agent's log: "+e.agentsLog())
	}
}

// agentsLog returns the command that prints the agent's log.
func (e *Explanation) agentsLog() string {
	namespace, name, _ := strings.Cut(e.Live.Agent, "/")
	return fmt.Sprintf("kubectl -n %s logs %s", namespace, name)
}

// judgeRules judges whether the kernel has the right rules.
func (e *Explanation) judgeRules() {
	l := e.Live
	if !l.redirects() {
		return
	}
	if l.Rules.Looked && !l.Rules.OK {
		l.find(NotWell, "its rules are not those that should be there: "+l.Rules.Detail,
			"Find out who changes rules in the pod's network. "+e.again())
	}
	switch {
	case l.told.Older:
		l.note("another release has written its rules; the chart's value renewRules has them replaced")
	case e.Verdict == Redirected && e.spec.Families != redirect.CapturedProxy &&
		e.spec.RuleSet().Hash() != l.Record.RuleSetHash:
		l.note("its rules were written by other settings than those of now, or by another release than this tool's")
	}
}

// state returns the pod's state, as far as is known.
func (e Explanation) state() State {
	switch {
	case e.Live != nil:
		return e.Live.State
	case e.Well():
		return Well
	}
	return NotWell
}

// isWarning reports whether an Event is a warning.
func (e Event) isWarning() bool { return e.Type == corev1.EventTypeWarning }

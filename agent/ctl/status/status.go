// Package status reports for each node of a cluster whether new mesh pods get their rules there, and in which state the
// existing ones are.
package status

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/agent/inspect"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// Verdict is the state of a node.
type Verdict = output.Verdict

// Values of Verdict.
const (
	Well     = output.Well
	NotWell  = output.NotWell
	NotAsked = output.NotAsked
)

// Status is the state of a cluster.
type Status struct {
	output.Head `json:",inline"`
	Summary     Summary `json:"summary"`
	Items       []Node  `json:"items"`
	// Rollouts are DaemonSets that have not replaced all their agents yet.
	Rollouts []Rollout `json:"rollouts,omitempty"`
	// NotLookedAt is what could not be looked at, each with its reason.
	NotLookedAt []string `json:"notLookedAt,omitempty"`
	// Unlisted are those of NotLookedAt without which a missing agent would not be noticed.
	Unlisted []string `json:"-"`
}

// Summary counts nodes by verdict, and pods.
type Summary struct {
	Well       int `json:"well"`
	NotWell    int `json:"notWell"`
	NotAsked   int `json:"notAsked"`
	Redirected int `json:"redirected"`
	Left       int `json:"left"`
	Waiting    int `json:"waiting"`
	Bypassed   int `json:"bypassed"`
}

// Node is the state of one node.
type Node struct {
	Name     string           `json:"name"`
	Verdict  Verdict          `json:"verdict"`
	Findings []output.Finding `json:"findings,omitempty"` // what is not well, or was not asked
	Warnings []output.Finding `json:"warnings,omitempty"` // what is well, but worth knowing
	Kernel   string           `json:"kernel,omitempty"`
	Runtime  string           `json:"runtime,omitempty"`
	Pod      string           `json:"pod,omitempty"`     // of the agent, NAMESPACE/NAME
	Release  string           `json:"release,omitempty"` // of the agent's pod, from the chart's label
	Agent    *inspect.Node    `json:"agent,omitempty"`
	// Unasked is why a running agent did not answer.
	Unasked error `json:"-"`
	// Clock is the node's clock. It is known if Agent has a time.
	Clock cluster.Clock `json:"-"`
}

// CannotAnswer reports whether the agent's release cannot answer any question.
func (n Node) CannotAnswer() bool {
	return cluster.CannotAnswer(n.Unasked)
}

// Source is what a status is read from: a cluster.
type Source interface {
	Nodes(ctx context.Context) ([]corev1.Node, error)
	Agents(ctx context.Context, namespace string) ([]corev1.Pod, error)
	DaemonSets(ctx context.Context, namespace string) ([]appsv1.DaemonSet, error)
	AskNode(ctx context.Context, agent corev1.Pod) (inspect.Node, error)
}

// atOnce is how many agents are asked at the same time.
const atOnce = 16

// Of reads the status of a cluster. namespace is that of the agents, "" for all. An error means that nothing could be
// asked.
func Of(ctx context.Context, from Source, namespace string) (Status, error) {
	s := Status{Head: output.HeadOf("Status"), Items: []Node{}}
	// Before the agents: if it shows a complete rollout, the agents that are listed next are the new ones.
	sets, noSets := from.DaemonSets(ctx, namespace)
	agents, err := from.Agents(ctx, namespace)
	if err != nil {
		return s, fmt.Errorf("listing the agents' pods%s: %w", cluster.Needs("the verb list on pods", err), err)
	}
	if noSets != nil {
		s.Unlisted = append(s.Unlisted, fmt.Sprintf("nodes that lack an agent, and whether an upgrade has reached all%s: %v",
			cluster.Needs("the verb list on daemonsets.apps"+in(namespace), noSets), noSets))
	}
	if len(agents) == 0 && len(sets) == 0 {
		return s, cmp.Or(wrapped(noSets), cluster.ErrNoAgent)
	}
	nodes, err := from.Nodes(ctx)
	if err != nil {
		s.Unlisted = append(s.Unlisted, fmt.Sprintf("nodes that lack an agent, kernels and runtimes%s: %v",
			cluster.Needs("the verb list on nodes", err), err))
	}
	s.NotLookedAt = append(s.NotLookedAt, s.Unlisted...)
	for _, set := range sets {
		if r := RolloutOf(set); r != nil {
			s.Rollouts = append(s.Rollouts, *r)
		}
	}
	s.Items = merged(nodes, sets, agents)
	ask(ctx, from, s.Items, byNode(agents))
	for _, n := range s.Items {
		if n.Agent != nil && !n.Agent.Installation.Managed {
			s.NotLookedAt = append(s.NotLookedAt, "the installation on "+n.Name+", which the agent leaves to somebody else "+
				"(--no-install)")
		}
	}
	s.NotLookedAt = append(s.NotLookedAt, s.Unchecked()...)
	s.count()
	return s, nil
}

// wrapped adds to err that there is no agent's pod, and that its DaemonSet could not be read. It returns nil for nil.
func wrapped(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("there is no agent's pod, and its DaemonSet could not be looked for%s: %w",
		cluster.Needs("the verb list on daemonsets.apps", err), err)
}

// in returns a text about a namespace, "" for all.
func in(namespace string) string {
	if namespace == "" {
		return " in all namespaces"
	}
	return " in namespace " + namespace
}

// Unchecked returns where the rules of pods cannot be checked, why, and which value changes that: one line for each
// reason.
func (s Status) Unchecked() (lines []string) {
	nodes := map[inspect.Rules][]string{}
	var reasons []inspect.Rules
	for _, n := range s.Items {
		if n.Agent == nil {
			continue
		}
		for _, why := range n.Agent.Unchecked {
			if nodes[why] == nil {
				reasons = append(reasons, why)
			}
			nodes[why] = append(nodes[why], n.Name)
		}
	}
	for _, why := range reasons {
		lines = append(lines, fmt.Sprintf("whether redirected pods have their rules, on %s: %s; the chart's value that "+
			"changes this is %s", some(nodes[why]), why.Detail, why.Change))
	}
	return lines
}

// shownNodes is the largest number of nodes in a line.
const shownNodes = 5

// some joins the first shownNodes names, and counts the others.
func some(names []string) string {
	if more := len(names) - shownNodes; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:shownNodes], ", "), more)
	}
	return strings.Join(names, ", ")
}

// releaseLabel is the label of the agents' pods with their release, which the chart sets.
const releaseLabel = "app.kubernetes.io/version"

// byNode maps nodes to their agents. If one agent replaces another, the one that is not being deleted counts.
func byNode(agents []corev1.Pod) map[string]corev1.Pod {
	found := map[string]corev1.Pod{}
	for _, pod := range agents {
		if other, known := found[pod.Spec.NodeName]; !known || other.DeletionTimestamp != nil {
			found[pod.Spec.NodeName] = pod
		}
	}
	delete(found, "") // without a node: the row of its node shows that no agent runs there
	return found
}

// merged returns a row for each node that has an agent or should have one, sorted by name.
func merged(nodes []corev1.Node, sets []appsv1.DaemonSet, agents []corev1.Pod) (rows []Node) {
	rows = []Node{}
	left := byNode(agents)
	for _, node := range nodes {
		row := Node{Name: node.Name, Verdict: Well, Kernel: node.Status.NodeInfo.KernelVersion,
			Runtime: strings.Replace(node.Status.NodeInfo.ContainerRuntimeVersion, "://", " ", 1)}
		switch pod, has := left[node.Name]; {
		case has:
			delete(left, node.Name)
			row.Pod, row.Release = pod.Namespace+"/"+pod.Name, pod.Labels[releaseLabel]
		default:
			set := slices.IndexFunc(sets, func(set appsv1.DaemonSet) bool { return cluster.Wants(set, node) })
			if set < 0 {
				continue
			}
			row.find(NotWell, "no agent runs here", fmt.Sprintf("kubectl -n %s describe daemonset %s", sets[set].Namespace,
				sets[set].Name))
		}
		rows = append(rows, row)
	}
	for name, pod := range left {
		rows = append(rows, Node{Name: name, Verdict: Well, Pod: pod.Namespace + "/" + pod.Name,
			Release: pod.Labels[releaseLabel]})
	}
	slices.SortFunc(rows, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	return rows
}

// ask asks the agents of all rows.
func ask(ctx context.Context, from Source, rows []Node, agents map[string]corev1.Pod) {
	cluster.AtOnce(len(rows), atOnce, func(i int) {
		if pod, has := agents[rows[i].Name]; has {
			rows[i].ask(ctx, from, pod)
		}
	})
}

// askTimeout limits one question, so that an agent or kubelet that hangs does not delay the others' answers.
const askTimeout = 20 * time.Second

// ask asks the agent, and judges its answer.
func (n *Node) ask(ctx context.Context, from Source, pod corev1.Pod) {
	kubectl := "kubectl -n " + pod.Namespace
	if pod.Status.Phase != corev1.PodRunning || pod.DeletionTimestamp != nil {
		why, next := whyNot(pod)
		n.find(NotWell, "its agent does not run: "+why, cmp.Or(next, kubectl+" describe pod "+pod.Name))
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	asked := time.Now()
	answer, err := from.AskNode(ctx, pod)
	answered := time.Now()
	if err != nil {
		n.Unasked = err
		n.findUnasked(pod, err)
		return
	}
	n.Agent = &answer
	if !answer.Time.IsZero() {
		n.Clock = cluster.ClockOf(answer.Time, 0, asked, answered)
	}
	for _, check := range answer.Checks {
		if !check.OK {
			n.find(NotWell, check.Name+": "+check.Detail, nextOf(answer, check, kubectl, pod.Name))
		}
	}
	if waiting := answer.Pods.WaitingLong; len(waiting) > 0 {
		n.find(NotWell, "pods wait for long: "+strings.Join(waiting, ", "), "istio-pod-networkctl explain "+waiting[0]+
			" says for what, and what to do")
	}
	n.Warnings = append(n.Warnings, OtherMeshes(answer.Installation.Plugins)...)
	n.warnOfAnswers()
	if !answer.Ready && n.Verdict == Well { // because of a check that this tool does not know
		n.find(NotWell, "its agent is not ready", kubectl+" logs "+pod.Name)
	}
}

// findUnasked adds a finding about an agent that did not answer. The pod's status shows whether the agent is ready.
func (n *Node) findUnasked(pod corev1.Pod, err error) {
	kubectl := "kubectl -n " + pod.Namespace
	verdict, what := NotAsked, "its agent could not be asked: "+err.Error()
	next := "see whether it answers: " + kubectl + " logs " + pod.Name
	switch {
	case cluster.LacksRight(err):
		next = "it needs " + cluster.RightToAsk(pod.Namespace)
	case n.CannotAnswer():
		what, next = "its agent is of a release that cannot answer: "+err.Error(), "upgrade the agents to the "+
			"release of this tool: helm upgrade (docs/operation.md, Upgrade)"
	}
	if !isReady(pod) {
		verdict, what = NotWell, "its agent is not ready, and "+strings.TrimPrefix(what, "its agent ")
	}
	n.find(verdict, what, next)
}

// find adds a finding.
func (n *Node) find(verdict Verdict, what, next string) {
	n.Verdict = n.Verdict.With(verdict)
	n.Findings = append(n.Findings, output.Finding{What: what, Next: next})
}

// count computes the summary.
func (s *Status) count() {
	for _, n := range s.Items {
		switch n.Verdict {
		case Well:
			s.Summary.Well++
		case NotWell:
			s.Summary.NotWell++
		default:
			s.Summary.NotAsked++
		}
		if n.Agent != nil {
			pods := n.Agent.Pods
			s.Summary.Redirected += pods.Redirected
			s.Summary.Left += pods.Left
			s.Summary.Waiting += len(pods.Waiting)
			s.Summary.Bypassed += len(pods.Bypassed)
		}
	}
}

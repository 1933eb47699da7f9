package status

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/internal/golden"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// fake is a cluster in memory.
type fake struct {
	nodes   []corev1.Node
	agents  []corev1.Pod
	sets    []appsv1.DaemonSet
	answers map[string]inspect.Node // by pod
	errs    map[string]error        // by resource or pod
	asked   func()                  // called at each request
}

func (f *fake) Nodes(context.Context) ([]corev1.Node, error) { return f.nodes, f.errs["nodes"] }

func (f *fake) Agents(context.Context, string) ([]corev1.Pod, error) {
	if f.asked != nil {
		f.asked()
	}
	return f.agents, f.errs["agents"]
}

func (f *fake) DaemonSets(context.Context, string) ([]appsv1.DaemonSet, error) {
	return f.sets, f.errs["daemonsets"]
}

func (f *fake) AskNode(_ context.Context, agent corev1.Pod) (inspect.Node, error) {
	return f.answers[agent.Name], f.errs[agent.Name]
}

// forbidden returns the API server's error for a missing right.
func forbidden(what string) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: what}, "", errors.New(`User "reader" cannot`))
}

// errAway is the error of requests while the API server is away.
var errAway = errors.New("connect: connection refused")

// two returns a cluster with two nodes that are well, and one that should have no agent.
func two() *fake {
	f := &fake{answers: map[string]inspect.Node{}, errs: map[string]error{}}
	for _, name := range []string{"node-a", "node-b", "windows"} {
		node := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/os": "linux"}}}
		node.Status.NodeInfo.KernelVersion = "6.12.38-generic"
		node.Status.NodeInfo.ContainerRuntimeVersion = "containerd://2.1.4"
		if name == "windows" {
			node.Labels["kubernetes.io/os"] = name
			f.nodes = append(f.nodes, node)
			continue
		}
		pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "mesh-network", Name: "agent-" + name}}
		pod.Spec.NodeName, pod.Status.Phase = name, corev1.PodRunning
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		f.nodes, f.agents = append(f.nodes, node), append(f.agents, pod)
		f.answers[pod.Name] = inspect.Node{
			Node: name, Agent: "v1.4.0", Questions: inspect.Questions, Ready: true,
			Checks: []inspect.Check{{Name: "installed", OK: true, Detail: "ready"}},
			Plugin: inspect.Plugin{Path: "/opt/cni/bin/istio-pod-network", SHA256: strings.Repeat("0123456789abcdef", 4),
				Version: "v1.4.0"},
			Installation: inspect.Installation{Managed: true, Mode: "chain", Chained: "spliced",
				Into: "/etc/cni/net.d/10-containerd-net.conflist", LastRepair: &inspect.Repair{
					Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Causes: []string{"binary-missing", "entry-missing"}}},
			Pods: inspect.Pods{Redirected: 12, Left: 1, Backends: []string{"nftables"}, Waiting: []string{},
				WaitingLong: []string{}, Bypassed: []string{}, Outside: []string{}, Older: []string{}},
		}
	}
	set := appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "mesh-network", Name: "istio-pod-network-agent"}}
	set.Spec.Template.Spec.NodeSelector = map[string]string{"kubernetes.io/os": "linux"}
	f.sets = []appsv1.DaemonSet{set}
	return f
}

// change changes the answer of node-b's agent.
func (f *fake) change(change func(*inspect.Node)) {
	answer := f.answers["agent-node-b"]
	change(&answer)
	f.answers["agent-node-b"] = answer
}

// rollOut sets how many nodes should have an agent, and how many have one of the present template.
func (f *fake) rollOut(desired, updated int32) {
	f.sets[0].Status.DesiredNumberScheduled, f.sets[0].Status.UpdatedNumberScheduled = desired, updated
}

// Output about clusters with a fault, with the exit status.
func TestStatus(t *testing.T) {
	for name, test := range map[string]struct {
		make   func(*fake)
		status int
	}{
		"well":     {func(*fake) {}, outcome.Well},
		"no-agent": {func(f *fake) { f.agents = f.agents[:1] }, outcome.NotWell},
		"crashing": {func(f *fake) {
			f.agents[1].Status.Phase = corev1.PodPending
			f.agents[1].Status.ContainerStatuses = []corev1.ContainerStatus{
				{Image: "registry.example.com/agent:1.4.0",
					State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}}}
		}, outcome.NotWell},
		"entry-removed": {func(f *fake) {
			f.change(func(n *inspect.Node) {
				n.Ready, n.Checks[0] = false, inspect.Check{Name: "installed", Detail: "not ready: it is not chained into " +
					"/etc/cni/net.d/10-containerd-net.conflist"}
				n.Installation.Chained, n.Installation.LastRepair = "no", nil
				n.Plugin = inspect.Plugin{Path: n.Plugin.Path}
			})
		}, outcome.NotWell},
		"bypass": {func(f *fake) {
			f.change(func(n *inspect.Node) {
				n.Ready = false
				n.Checks = append(n.Checks, inspect.Check{Name: "no bypass",
					Detail: "shop/cart-0: without rules, for the plugin was not run"})
				n.Pods.Bypassed = []string{"shop/cart-0"}
				n.Pods.Waiting, n.Pods.WaitingLong = []string{"shop/cart-1", "shop/cart-2"}, []string{"shop/cart-1"}
			})
		}, outcome.NotWell},
		"no-primary": {func(f *fake) {
			f.change(func(n *inspect.Node) {
				n.Ready, n.Checks[0] = false, inspect.Check{Name: "installed", Detail: "not ready: waiting: no primary network " +
					"configuration yet in /etc/cni/net.d"}
				n.Installation.Chained = "no"
			})
		}, outcome.NotWell},
		"unchecked": {func(f *fake) {
			f.change(func(n *inspect.Node) {
				n.Pods.Backends = []string{"iptables-nft"}
				n.Unchecked = []inspect.Rules{{Detail: "the rules were written by iptables-nft, whose programs the agent's image " +
					"lacks", Change: "backend: nftables, for pods that are made from then on"}}
			})
		}, outcome.Well},
		"other-mesh": {func(f *fake) {
			f.change(func(n *inspect.Node) {
				n.Installation.Plugins = []string{"bridge", "host-local", "istio-cni", "linkerd-cni"}
			})
		}, outcome.Well},
		"fewer-questions": {func(f *fake) {
			f.change(func(n *inspect.Node) { n.Questions = []string{"files", "node", "pod"} }) // 0.1's
		}, outcome.Well},
		"questions-unsaid": {func(f *fake) { f.change(func(n *inspect.Node) { n.Questions = nil }) }, outcome.Well},
		"unknown-check":    {func(f *fake) { f.change(func(n *inspect.Node) { n.Ready = false }) }, outcome.NotWell},
		"foreign-binary":   {func(f *fake) { f.change(func(n *inspect.Node) { n.Plugin.Version = "" }) }, outcome.Well},
		"not-managed": {func(f *fake) {
			f.change(func(n *inspect.Node) { n.Plugin, n.Installation = inspect.Plugin{}, inspect.Installation{} })
		}, outcome.Well},
		"forbidden": {func(f *fake) {
			f.errs["agent-node-b"] = apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "agent-node-b",
				errors.New(`User "reader" cannot create resource "pods/exec" in API group "" in the namespace "mesh-network"`))
		}, outcome.NotAsked},
		"not-ready-and-forbidden": {func(f *fake) {
			f.errs["agent-node-b"], f.agents[1].Status.Conditions = forbidden("pods/exec"), nil
		}, outcome.NotWell},
		"older": {func(f *fake) {
			f.errs["agent-node-b"] = errors.New(`istio-pod-network-agent: unexpected argument "inspect"; valid: flags`)
		}, outcome.NotAsked},
		"few-rights": {func(f *fake) {
			f.nodes, f.sets = nil, nil
			f.errs["nodes"], f.errs["daemonsets"] = forbidden("nodes"), forbidden("daemonsets")
		}, outcome.NotAsked},
		"unanswered": {func(f *fake) { f.errs["agent-node-b"] = errAway }, outcome.NotAsked},
		"nodes-away": {func(f *fake) {
			f.nodes, f.sets = nil, nil
			f.errs["nodes"], f.errs["daemonsets"] = errAway, errAway
		}, outcome.NotAsked},
		"no-nodes":      {func(f *fake) { f.nodes, f.errs["nodes"] = nil, forbidden("nodes") }, outcome.NotAsked},
		"no-daemonsets": {func(f *fake) { f.sets, f.errs["daemonsets"] = nil, forbidden("daemonsets") }, outcome.NotAsked},
		"no-nodes-not-well": {func(f *fake) {
			f.nodes, f.errs["nodes"] = nil, forbidden("nodes")
			f.change(func(n *inspect.Node) { n.Ready = false })
		}, outcome.NotWell},
		"rolling-out": {func(f *fake) { f.rollOut(2, 1) }, outcome.Well},
		"changed":     {func(f *fake) { f.sets[0].Generation = 2 }, outcome.Well},
		"on-delete": {func(f *fake) {
			f.rollOut(2, 1)
			f.sets[0].Spec.UpdateStrategy.Type = appsv1.OnDeleteDaemonSetStrategyType
		}, outcome.Well},
	} {
		t.Run(name, func(t *testing.T) {
			f := two()
			test.make(f)
			json := name == "bypass" || name == "rolling-out" || name == "fewer-questions"
			for format, file := range map[output.Format]string{output.Table: name + ".txt", output.Wide: name + "-wide.txt",
				output.JSON: name + ".json", output.YAML: name + ".yaml"} {
				if format != output.Table && name != "well" && (format != output.JSON || !json) {
					continue
				}
				var out bytes.Buffer
				err := options{}.run(t.Context(), f, output.Writer{Out: &out, Format: format})
				if got := outcome.StatusOf(err); got != test.status {
					t.Errorf("%s: status %d, want %d: %v", format, got, test.status, err)
				}
				golden.Compare(t, filepath.Join("testdata", file), out.String())
				if format != output.JSON && format != output.YAML {
					golden.Fits(t, file, out.String(), output.Width)
				}
			}
		})
	}
}

// Each remedy matches a text of the agent, and names a value or a command.
func TestRemedies(t *testing.T) {
	said := map[string]bool{}
	for _, c := range []inspect.Check{
		{Name: "HTTP", Detail: "listen tcp :15088: bind: address already in use"},
		{Name: "installed", Detail: `"/etc/cni/net.d": no primary network configuration yet: none has the name "x"`},
		{Name: "installed", Detail: "not ready: waiting: no primary network configuration yet in /etc/cni/net.d"},
		{Name: "installed", Detail: "chaining into \"/x\": the runtime looks for plugins elsewhere: none of …"},
		{Name: "installed", Detail: "chaining into \"/x\": it is a readiness file of its owner, never edited by us"},
		{Name: "installed", Detail: "ready: …; somebody takes it out again and again, so that …"},
		{Name: "installed", Detail: "not looked at yet"},
		{Name: "backend", Detail: "backend auto is not usable: …"},
		{Name: "pods", Detail: "not read yet"}, {Name: "namespaces", Detail: "not read yet"},
	} {
		next := nextOf(inspect.Node{}, c, "kubectl -n mesh", "agent-a")
		i := slices.IndexFunc(remedies, func(r remedy) bool { return strings.HasPrefix(next, r.next) && r.check == c.Name })
		if i < 0 || !strings.HasSuffix(next, "kubectl -n mesh logs agent-a") {
			t.Errorf("%+v: %s", c, next)
			continue
		}
		said[remedies[i].check+remedies[i].says] = true
	}
	if len(said) != len(remedies) {
		t.Errorf("only of %v there is a case", said)
	}
	next := nextOf(inspect.Node{}, inspect.Check{Name: "socket"}, "kubectl -n mesh", "agent-a")
	if !strings.HasSuffix(next, "kubectl -n mesh logs agent-a") {
		t.Error(next)
	}
}

// Each question has words about what needs its answer.
func TestAnswers(t *testing.T) {
	for _, question := range inspect.Questions {
		if answers[question] == "" {
			t.Errorf("inspect %s: what needs it?", question)
		}
	}
	if len(answers) != len(inspect.Questions) {
		t.Errorf("%d words for %d questions", len(answers), len(inspect.Questions))
	}
}

// If nothing can be asked, nothing is written.
func TestUnasked(t *testing.T) {
	for name, f := range map[string]*fake{
		"the verb list on pods":            {errs: map[string]error{"agents": forbidden("agents")}},
		"the verb list on daemonsets.apps": {errs: map[string]error{"daemonsets": forbidden("daemonsets")}},
		"what was not looked at says why":  {sets: two().sets, errs: map[string]error{"nodes": forbidden("nodes")}},
		"install the chart":                {},
		"selector and affinity":            {sets: two().sets},
	} {
		var out bytes.Buffer
		err := options{}.run(t.Context(), f, output.Writer{Out: &out})
		if outcome.StatusOf(err) != outcome.NotAsked || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, %q, want %s", err, out.String(), name)
		}
	}
	for _, what := range []string{"agents", "daemonsets"} {
		err := options{}.run(t.Context(), &fake{errs: map[string]error{what: errAway}}, output.Writer{Out: io.Discard})
		if outcome.StatusOf(err) != outcome.NotAsked || !errors.Is(err, errAway) || strings.Contains(err.Error(), "needs") {
			t.Errorf("the API server is away: %v", err)
		}
	}
}

// --wait ends as soon as all is well, and otherwise with the last look when its time is over. It writes one look.
func TestWait(t *testing.T) {
	f := two()
	f.change(func(n *inspect.Node) { n.Ready = false })
	looks := 0
	f.asked = func() {
		if looks++; looks == 2 {
			f.change(func(n *inspect.Node) { n.Ready = true })
		}
	}
	var out bytes.Buffer
	err := options{wait: true, timeout: time.Hour}.run(t.Context(), f, output.Writer{Out: &out})
	if err != nil || looks != 2 || !strings.HasPrefix(out.String(), "2 nodes: 2 well") {
		t.Errorf("%v after %d looks: %s", err, looks, out.String())
	}
	f.asked = nil
	f.change(func(n *inspect.Node) { n.Ready = false })
	out.Reset()
	err = (options{wait: true, timeout: time.Nanosecond}).run(t.Context(), f, output.Writer{Out: &out})
	if !errors.Is(err, outcome.ErrNotWell) || strings.Count(out.String(), "nodes:") != 1 {
		t.Errorf("%v: %s", err, out.String())
	}
	err = (options{wait: true, timeout: time.Nanosecond}).run(t.Context(), &fake{}, output.Writer{Out: &out})
	if outcome.StatusOf(err) != outcome.NotAsked {
		t.Error(err)
	}
}

// --wait does not end while old agents that are well are still to be replaced. It ends if a missing right prevents it
// from seeing more.
func TestWaitForRollout(t *testing.T) {
	f := two()
	f.sets[0].Generation = 2 // helm upgrade has just returned
	looks := 0
	f.asked = func() {
		switch looks++; looks {
		case 2:
			f.sets[0].Status.ObservedGeneration = 2
			f.rollOut(2, 1)
		case 3:
			f.rollOut(2, 2)
		}
	}
	var out bytes.Buffer
	err := options{wait: true, timeout: time.Hour}.run(t.Context(), f, output.Writer{Out: &out})
	if err != nil || looks != 3 || strings.Contains(out.String(), "DaemonSet") {
		t.Errorf("%v after %d looks: %s", err, looks, out.String())
	}
	f.asked = nil
	f.rollOut(2, 1)
	out.Reset()
	err = (options{wait: true, timeout: time.Nanosecond}).run(t.Context(), f, output.Writer{Out: &out})
	if !errors.Is(err, outcome.ErrNotWell) || !strings.Contains(out.String(), "1 of 2 agents are of the present release") {
		t.Errorf("%v: %s", err, out.String())
	}
	f = two()
	f.sets, f.errs["daemonsets"] = nil, forbidden("daemonsets")
	err = (options{wait: true, timeout: time.Hour}).run(t.Context(), f, output.Writer{Out: &out})
	if outcome.StatusOf(err) != outcome.NotAsked {
		t.Error(err)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// ended calls done at the first write.
type ended struct{ done func() }

func (e *ended) Write(data []byte) (int, error) { e.done(); return len(data), nil }

package trace

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/agent/ctl/explain"
	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/internal/golden"
	"github.com/istio-pod-network/controller/plugin/look/report"
	corev1 "k8s.io/api/core/v1"
)

// agents is the fake's cluster with agents that give the same report about each packet.
type agents struct {
	fake
	told  report.Trace
	err   error
	none  bool
	of    string // UID of the pod that the report is about
	asked string
}

func (a *agents) AgentOn(ctx context.Context, namespace, node string) (*corev1.Pod, error) {
	if a.none {
		return nil, nil
	}
	return a.fake.AgentOn(ctx, namespace, node)
}

func (a *agents) AskTrace(
	_ context.Context, agent corev1.Pod, namespace, name, from, proto, to string,
) (inspect.Trace, error) {
	a.asked = strings.Join([]string{agent.Name, namespace, name, from, proto, to}, " ")
	return inspect.Trace{UID: a.of, Kernel: a.told}, a.err
}

// outbound is a kernel's report about an app's call that is redirected.
func outbound() report.Trace {
	const table = "istio-pod-network"
	step := func(hook, chain string, rule int, verdict string) report.Step {
		return report.Step{Hook: hook, Family: "ip", Table: table, Chain: chain, Rule: rule, Verdict: verdict}
	}
	return report.Trace{From: "10.244.0.7:40000", To: "10.96.0.10:80", Steps: []report.Step{
		step("output", "nat-istio-output", 7, "jump nat-istio-redirect"),
		step("output", "nat-istio-redirect", 1, "accept"),
		step("output", "filter-istio-output", 1, "jump filter-istio-guard-out"),
		step("output", "filter-istio-guard-out", 4, "return"),
		step("output", "filter-istio-output", 0, "policy accept"),
		step("input", "filter-istio-input", 1, "return"),
		step("input", "filter-istio-input", 0, "policy accept"),
	}, End: report.End{Where: report.Pod, To: "127.0.0.1:15101", Link: "lo"}}
}

// inbound is its report about a packet from outside, with an interface that the prediction cannot know.
func inbound() report.Trace {
	told := outbound()
	told.From, told.To, told.In = "10.1.0.9:40000", "10.244.0.7:8080", "net0"
	told.Steps = []report.Step{
		{Hook: "prerouting", Family: "ip", Table: "istio-pod-network", Chain: "nat-istio-inbound", Rule: 2,
			Verdict: "jump nat-istio-in-redirect"},
		{Hook: "prerouting", Family: "ip", Table: "istio-pod-network", Chain: "nat-istio-in-redirect", Rule: 1,
			Verdict: "accept"},
		{Hook: "input", Family: "ip", Table: "istio-pod-network", Chain: "filter-istio-input", Rule: 2, Verdict: "return"},
	}
	told.End = report.End{Where: report.Pod, To: "10.244.0.7:15006", Link: "net0"}
	return told
}

// The kernel's report is beside the prediction: it agrees, it differs, or it is missing.
func TestKernel(t *testing.T) {
	changed := func(change func(*report.Trace)) report.Trace {
		told := outbound()
		change(&told)
		return told
	}
	for name, test := range map[string]struct {
		told   report.Trace
		err    error
		none   bool
		of     string
		args   options
		asked  string
		status int
	}{
		"kernel.txt":  {told: outbound(), asked: "agent-a shop cart-0 uid:1000:1000 tcp 10.96.0.10:80", status: outcome.Well},
		"kernel.json": {told: outbound(), args: options{output: "json"}, status: outcome.Well},
		"kernel-outside.txt": {told: inbound(), args: options{from: fromOutside, to: "pod:8080"},
			asked: "agent-a shop cart-0 outside tcp 10.244.0.7:8080", status: outcome.Well},
		"kernel-picture.txt": {told: outbound(), args: options{picture: string(output.InText)}, status: outcome.Well},
		"kernel-foreign.txt": {told: changed(func(told *report.Trace) {
			told.Steps = []report.Step{{Hook: "output", Family: "inet", Table: "theirs", Chain: "out", Verdict: "drop"}}
			told.End = report.End{Where: report.Dropped}
		}), status: outcome.NotWell},
		"kernel-differs.txt": {told: changed(func(told *report.Trace) {
			told.Steps = append(told.Steps[:1:1], told.Steps[2:]...)
			told.Steps[1].Rule = 99
			told.End.To = "10.96.0.10:80"
		}), status: outcome.NotWell},
		"kernel-not-looked.txt": {told: report.Trace{Why: "the agent has no rights in pods' network namespaces " +
			"(--repair=off)", Value: "repair: apply"}, status: outcome.Well},
		"kernel-older-agent.txt": {err: errors.New("istio-pod-network-agent: unexpected argument \"trace\""),
			status: outcome.NotAsked},
		"kernel-no-right.txt":    {err: forbidden("pods/exec"), status: outcome.NotAsked},
		"kernel-no-answer.txt":   {err: errAway, status: outcome.NotAsked},
		"kernel-earlier-pod.txt": {told: outbound(), of: "of before", status: outcome.NotAsked},
		"kernel-no-agent.txt":    {none: true, status: outcome.NotAsked},
		"kernel-no-agent.json":   {none: true, args: options{output: "json"}, status: outcome.NotAsked},
		"kernel-no-record.txt": {told: report.Trace{Why: "there is no record of the pod, so nobody knows its network"},
			status: outcome.Well},
		"kernel-not-looked.yaml": {told: report.Trace{Why: "the agent has no rights in pods' network namespaces " +
			"(--repair=off)", Value: "repair: apply"}, args: options{output: "yaml"}, status: outcome.Well},
	} {
		from := &agents{fake: fake{config: `{"type": "istio-pod-network", "redirect": {"outboundPort": 15101}}`},
			told: test.told, err: test.err, none: test.none, of: test.of}
		o := options{live: true, from: fromApp, to: "10.96.0.10:80", proto: "tcp", backend: backends[0], output: "table"}
		if test.args.from != "" {
			o.from, o.to = test.args.from, test.args.to
		}
		if test.args.output != "" {
			o.output = test.args.output
		}
		o.picture = test.args.picture
		var out bytes.Buffer
		question, err := o.question()
		if err != nil {
			t.Fatal(err)
		}
		question.kernel = o.kernels(t.Context(), from)
		err = question.ask(t.Context(), from, "", explain.Settings{}, []string{"shop/cart-0"}, output.Writer{Out: &out})
		if outcome.StatusOf(err) != test.status || test.asked != "" && from.asked != test.asked {
			t.Errorf("%s: %v, asked %q", name, err, from.asked)
		}
		golden.Compare(t, filepath.Join("testdata", name), out.String())
		if strings.HasSuffix(name, ".txt") {
			golden.Fits(t, name, out.String(), output.Width)
		}
	}
}

// Names of interfaces in a pod's network cannot control the terminal.
func TestKernelPrintable(t *testing.T) {
	const bad = "net\x1b[2J\u202e"
	for _, o := range []options{{output: "table"}, {output: "wide"}, {output: "table", picture: string(output.InText)},
		{output: "table", picture: string(output.InSVG)}} {
		told := inbound()
		told.In, told.End = bad, report.End{Where: report.Outside, To: "10.96.0.10:80", Link: bad}
		from := &agents{fake: fake{config: `{"type": "istio-pod-network"}`}, told: told}
		o.live, o.from, o.to, o.proto, o.backend = true, fromOutside, "pod:8080", "tcp", backends[0]
		question, err := o.question()
		if err != nil {
			t.Fatal(err)
		}
		question.kernel = o.kernels(t.Context(), from)
		var out bytes.Buffer
		err = question.ask(t.Context(), from, "", explain.Settings{}, []string{"shop/cart-0"}, output.Writer{Out: &out})
		if outcome.StatusOf(err) != outcome.NotWell || !strings.Contains(out.String(), "net") ||
			output.Printable(out.String()) != out.String() {
			t.Errorf("%v: %q", err, out.String())
		}
	}
}

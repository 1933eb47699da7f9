package trace

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/explain"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/plugin/look/report"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/istio-pod-network/controller/plugin/trace"
	corev1 "k8s.io/api/core/v1"
)

// Kernel is the kernel's report about a packet, beside the prediction.
type Kernel struct {
	// Looked says that the kernel was asked. Otherwise Agrees and Steps mean nothing.
	Looked bool `json:"looked"`
	Agrees bool `json:"agrees"`
	// Detail says how kernel and prediction differ, or why the kernel was not asked.
	Detail string `json:"detail,omitempty"`
	// Next says what to do about that.
	Next string `json:"next,omitempty"`
	// unasked says that the kernel could not be asked.
	unasked bool
	// Change is the chart's value with which the agent could have asked.
	Change string       `json:"change,omitempty"`
	From   string       `json:"from,omitempty"` // source and destination of the packet
	To     string       `json:"to,omitempty"`
	Steps  []KernelStep `json:"steps,omitempty"`
	End    report.End   `json:"end,omitzero"`
}

// KernelStep is a rule that matched the packet, or the end of a base chain.
type KernelStep struct {
	Hook    string `json:"hook,omitempty"`
	Table   string `json:"table"` // with its family
	Chain   string `json:"chain"`
	Rule    int    `json:"rule,omitempty"` // its number in the chain, as in the prediction's steps
	Verdict string `json:"verdict"`
	// Ours says that the rule is in the plugin's tables, Predicted that the prediction has it at this place.
	Ours      bool `json:"ours,omitempty"`
	Predicted bool `json:"predicted,omitempty"`
}

// kernel asks the kernel of a pod's node about a packet.
type kernel func(e explain.Explanation, p trace.Packet) answer

// answer is the kernel's report, or why the kernel could not be asked.
type answer struct {
	report.Trace
	unasked, next string
}

// asker is a cluster whose agents can trace packets.
type asker interface {
	AgentOn(ctx context.Context, namespace, node string) (*corev1.Pod, error)
	AskTrace(ctx context.Context, agent corev1.Pod, namespace, name, from, proto, to string) (inspect.Trace, error)
}

// kernels returns a function that asks the agents, nil without --live.
func (o options) kernels(ctx context.Context, from asker) kernel {
	if !o.live {
		return nil
	}
	return func(e explain.Explanation, p trace.Packet) answer {
		node := e.Pod().Spec.NodeName
		if node == "" {
			return answer{Trace: report.Trace{Why: "the pod is on no node yet"}, next: "Ask again once it is on one."}
		}
		agent, err := from.AgentOn(ctx, o.agents, node)
		switch {
		case err != nil:
			return answer{unasked: fmt.Sprintf("the agent of %s is not known%s: %v", node,
				cluster.Needs("the verb list on pods in the agents' namespace", err), err), next: cluster.NextUnlisted(err)}
		case agent == nil:
			return answer{unasked: "no agent runs on " + node, next: cluster.NextNoAgent}
		}
		sender := "outside"
		if p.Owner != nil {
			sender = fmt.Sprintf("uid:%s:%s", p.Owner.UID, p.Owner.GID)
		}
		told, err := from.AskTrace(ctx, *agent, e.Namespace, e.Name, sender, p.Proto.String(), p.Dest.String())
		switch {
		case cluster.CannotAnswer(err):
			return answer{unasked: "the agent is of a release that cannot tell",
				next: cluster.NextCannotAnswer}
		case err != nil:
			return answer{unasked: fmt.Sprintf("the agent does not answer%s: %v",
				cluster.Needs(cluster.RightToAsk(agent.Namespace), err), err),
				next: cluster.NextUnasked(agent.Namespace, err)}
		}
		if told.UID != "" && told.UID != string(e.Pod().UID) {
			return answer{unasked: "the agent still sees an earlier pod of this name", next: "Look again in a moment."}
		}
		return answer{Trace: told.Kernel}
	}
}

// parseSource parses an address with its port. If it cannot, it returns otherwise.
func parseSource(text string, otherwise netip.AddrPort) netip.AddrPort {
	if a, err := netip.ParseAddrPort(text); err == nil {
		return a
	}
	return otherwise
}

// kernelOf compares the kernel's report about a packet of a pod, NAMESPACE/NAME, with the predicted way.
func kernelOf(pod string, told answer, rules trace.Rules, way trace.Way) *Kernel {
	switch {
	case told.unasked != "":
		return &Kernel{Detail: told.unasked, Next: told.next, unasked: true}
	case told.Value != "":
		return &Kernel{Detail: told.Why, Next: "with the chart's value " + told.Value + " the agent looks",
			Change: told.Value}
	case told.Why != "":
		return &Kernel{Detail: told.Why, Next: cmp.Or(told.next, "istio-pod-networkctl explain "+pod+
			" says what became of the pod's network; if that is well, ask again")}
	}
	compared := rules.Compare(way, told.Trace)
	k := &Kernel{Looked: true, Agrees: compared.Differs == "", Detail: compared.Differs, From: told.From, To: told.To,
		End: told.End}
	if !k.Agrees {
		k.Next = "istio-pod-networkctl explain " + pod + " says whether the pod has the rules that it should have"
	}
	for _, h := range compared.Heard {
		rule := h.Number
		if !h.Ours {
			rule = h.Rule
		}
		k.Steps = append(k.Steps, KernelStep{Hook: h.Hook, Table: h.Family + " " + h.Table, Chain: h.Chain, Rule: rule,
			Verdict: h.Verdict, Ours: h.Ours, Predicted: h.Predicted})
	}
	return k
}

// isOurs reports whether a table, with its family, is one of the plugin's.
func isOurs(table string) bool {
	_, name, _ := strings.Cut(table, " ")
	return name == redirect.TableName
}

// ends returns where the packet was at the end.
func (k Kernel) ends() string {
	switch k.End.Where {
	case report.Dropped:
		return "nowhere: a rule drops it"
	case report.Outside:
		return fmt.Sprintf("outside: it would leave by %s, to %s", k.End.Link, k.End.To)
	}
	return fmt.Sprintf("in the pod: by %s, for %s", k.End.Link, k.End.To)
}

// write writes the kernel's report about a packet of a pod.
func (k Kernel) write(t *output.Text) {
	if !k.Looked {
		verdict := output.NotLookedAt
		t.Line(verdict.Colour(), "%s kernel: not looked at: %s", verdict.Sign(), k.Detail)
		t.Item("->", "%s", k.Next)
		t.WriteByte('\n')
		return
	}
	t.Line(output.Bold, "The kernel, of a packet from %s to %s, which nobody has received", k.From, k.To)
	t.WriteByte('\n')
	rows := [][]string{{"", "hook", "chain", "rule", "verdict", ""}}
	for _, s := range k.Steps {
		sign, rule, note := "", "", ""
		switch {
		case s.Predicted:
			sign = output.Well.Sign()
		case s.Ours:
			sign, note = output.NotWell.Sign(), "not predicted"
		case !isOurs(s.Table):
			note = "not ours: " + s.Table
		}
		if s.Rule > 0 {
			rule = fmt.Sprint(s.Rule)
		}
		rows = append(rows, []string{sign, s.Hook, s.Chain, rule, s.Verdict, note})
	}
	t.Columns(rows)
	t.Drawn("\nends  " + k.ends() + "\n\n")
	if k.Agrees {
		t.Line(output.Well.Colour(), "%s kernel: it agrees with the prediction", output.Well.Sign())
	} else {
		t.Finding(output.NotWell, "kernel", output.Finding{What: "it differs from the prediction: " + k.Detail, Next: k.Next})
	}
	t.WriteByte('\n')
}

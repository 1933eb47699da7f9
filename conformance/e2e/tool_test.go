package e2e

import (
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/internal/golden"
	"github.com/istio-pod-network/controller/plugin/annotation"
)

// told is the JSON output of istio-pod-networkctl about a cluster.
type told struct {
	Summary     struct{ Well, NotWell, NotAsked, Redirected int }
	NotLookedAt []string
	Items       []struct {
		Name, Verdict, Kernel, Runtime string
		Findings                       []struct{ What, Next string }
		Control                        bool
		Flows                          []proven
		Agent                          struct {
			Agent, Node  string
			Plugin       struct{ Version, SHA256 string }
			Installation struct{ Chained string }
			Ready        bool
		}
	}
}

// proven is a flow in the JSON output of verify.
type proven struct{ Flow, Family, Verdict, Why string }

// toolSays runs istio-pod-networkctl, decodes its JSON output into t, and returns its exit status.
func (r *rig) toolSays(t any, args ...string) (status int) {
	r.Helper()
	status, out := r.toolPrints(append(args, "-o", "json")...)
	if err := json.Unmarshal(out, t); err != nil {
		r.Fatalf("%q: status %d, %v: %s", args, status, err, out)
	}
	return status
}

// toolPrints runs istio-pod-networkctl, and returns its exit status and its standard output.
func (r *rig) toolPrints(args ...string) (status int, out []byte) {
	r.Helper()
	out, err := asAdmin("istio-pod-networkctl", args...).Output()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		r.Fatal(err)
	}
	if failed != nil {
		status = failed.ExitCode()
	}
	return status, out
}

// tool is toolSays with told as the type.
func (r *rig) tool(args ...string) (status int, t told) {
	r.Helper()
	return r.toolSays(&t, args...), t
}

// explained is the JSON output of explain.
type explained struct {
	Operator string
	Items    []struct {
		Name, Verdict, Reason string
		Cluster               struct {
			State       string
			Findings    []struct{ What, Next string }
			Node, Agent string
			Mark        struct{ Status, NetNS string }
			Wait        struct{ State string }
			Record      struct{ Decision, Reason, NetNS string }
			Rules       struct {
				Looked, OK bool
				Detail     string
			}
			Injection   []struct{ Name string }
			NotLookedAt []string
		}
	}
	NotLookedAt []string
}

// explain runs explain for pods, of which the first is of the mesh. It repeats it if the agent of a busy machine could
// not look into the pod's network in time.
func (r *rig) explain(args ...string) (status int, e explained) {
	r.Helper()
	r.soon(func() bool {
		e = explained{}
		status = r.toolSays(&e, append([]string{"explain"}, args...)...)
		return len(e.Items) == 0 || e.Items[0].Cluster.Rules.Looked
	})
	return status, e
}

// istio-pod-networkctl asks the agents by exec, and reports that both nodes are well. Without agents it lists no node.
func TestOperatorsTool(t *testing.T) {
	r := newRig(t)
	r.installed()
	r.create(r.meshPod("cart-0"))
	r.throughSidecar("cart-0")
	status, s := r.tool("status", "--wait", waits())
	if status != 0 || s.Summary.Well != len(nodes.Nodes) || len(s.Items) != len(nodes.Nodes) || s.Summary.Redirected < 1 {
		t.Errorf("status %d: %+v", status, s)
	}
	chained := map[string]string{}
	for _, n := range nodes.Nodes {
		chained[n.Name] = map[cluster.Runtime]string{cluster.Current: "drop-in", cluster.Debian: "spliced"}[n.Runtime]
	}
	for _, n := range s.Items {
		if n.Verdict != "well" || n.Agent.Node != n.Name || !n.Agent.Ready ||
			n.Agent.Installation.Chained != chained[n.Name] || n.Agent.Agent == "" ||
			n.Agent.Plugin.Version != n.Agent.Agent || len(n.Agent.Plugin.SHA256) != 64 || n.Kernel == "" || n.Runtime == "" {
			t.Errorf("%+v", n)
		}
	}
	r.toolChecks()
	r.explains()
	r.traces()
	r.dumpsSystem()
	r.readable()
	r.stopAgents()
	if status, s = r.tool("status", "-n", system); status != 3 || len(s.Items) != 0 { // no node should have an agent
		t.Errorf("without agents: status %d: %+v", status, s)
	}
}

// readable checks the text output of each command, for a healthy cluster with the mesh pod cart-0: it fits 100 columns,
// and has no colours, because the output is not a terminal.
func (r *rig) readable() {
	r.Helper()
	const most = 100
	pod, to := r.namespace+"/cart-0", "--to=192.0.2.1:80"
	for _, args := range [][]string{
		{"status"}, {"status", "-o", "wide"}, {"check"}, {"check", "-o", "wide"}, {"version", "-o", "wide"}, {"explain", pod},
		{"explain", "--picture", pod}, {"trace", pod, to}, {"trace", "--picture", pod, to}, {"sysdump", "--list"},
	} {
		status, out := r.toolPrints(args...)
		if status != 0 || len(out) == 0 || strings.Contains(string(out), "\x1b") {
			r.Errorf("%q: status %d: %q", args, status, out)
		}
		golden.Fits(r, strings.Join(args, " "), string(out), most)
	}
}

// explains runs explain for the mesh pod cart-0 and for a pod outside the mesh. Both are well, until rules are deleted
// in the first one's network namespace.
func (r *rig) explains() {
	r.Helper()
	r.marked("cart-0")
	r.create(r.appPod("plain"))
	r.running("plain")
	ask := func() (int, explained) {
		r.Helper()
		return r.explain("cart-0", r.namespace+"/plain", "-n", r.namespace)
	}
	status, e := ask()
	if status != 0 || len(e.Items) != 2 || len(e.NotLookedAt) > 0 ||
		e.Operator != "ConfigMap "+system+"/istio-pod-network-config" {
		r.Fatalf("status %d: %+v", status, e)
	}
	c := e.Items[0].Cluster
	if e.Items[0].Verdict != "redirected" || c.State != "well" || c.Node != r.node.Name || c.Agent == "" ||
		c.Mark.Status != annotation.Initialized || c.Mark.NetNS != c.Record.NetNS || c.Wait.State != "ended" ||
		c.Record.Decision != "redirect" || c.Record.Reason != "injected" || !c.Rules.Looked || !c.Rules.OK ||
		len(c.NotLookedAt) > 0 {
		r.Errorf("of a pod of the mesh: %+v", e.Items[0])
	}
	if o := e.Items[1]; o.Verdict != "untouched" || o.Reason != "not-injected" || o.Cluster.State != "well" ||
		o.Cluster.Record.Decision != "" || len(o.Cluster.NotLookedAt) > 0 {
		r.Errorf("of a pod outside the mesh: %+v", o)
	}
	// Flush the guard's chain: without it, the app still does not bypass the sidecar in this test.
	r.output(r.inPod("cart-0", "nft", "flush", "chain", "ip", "istio-pod-network", "filter-istio-guard-out"))
	status, e = ask()
	if c = e.Items[0].Cluster; status != 1 || c.State != "not well" || !c.Rules.Looked || c.Rules.OK ||
		len(c.Findings) != 1 || !strings.Contains(c.Findings[0].What, "filter-istio-guard-out") || c.Findings[0].Next == "" ||
		e.Items[1].Cluster.State != "well" {
		r.Errorf("without a rule: status %d: %+v", status, e)
	}
	before, old := c.Record.NetNS, r.pod("cart-0").Status.ContainerStatuses[0].ContainerID
	r.killSandbox("cart-0") // the new sandbox has all rules; until it exists, explain may find nothing wrong
	r.eventually("the pod is well again", func() bool {
		status, e = ask()
		c := e.Items[0].Cluster
		return status == 0 && c.Record.NetNS != "" && c.Record.NetNS != before && c.Mark.NetNS == c.Record.NetNS
	})
	r.eventually("the pod's status is of its new containers", func() bool {
		p := r.pod("cart-0")
		return started(p) && p.Status.ContainerStatuses[0].ContainerID != old
	})
}

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

// told is what the operator's tool says as JSON of a cluster.
type told struct {
	Summary     struct{ Well, NotWell, NotAsked, Redirected int }
	NotLookedAt []string
	Items       []struct {
		Name, Verdict, Kernel, Runtime string
		Findings                       []struct{ What, Next string }
		Control                        bool
		Flows                          []struct{ Flow, Family, Verdict, Why string }
		Agent                          struct {
			Agent, Node  string
			Plugin       struct{ Version, SHA256 string }
			Installation struct{ Chained string }
			Ready        bool
		}
	}
}

// toolSays runs the operator's tool, has what it says read into t, and returns its exit status.
func (r *rig) toolSays(t any, args ...string) (status int) {
	r.Helper()
	status, out := r.toolPrints(append(args, "-o", "json")...)
	if err := json.Unmarshal(out, t); err != nil {
		r.Fatalf("%q: status %d, %v: %s", args, status, err, out)
	}
	return status
}

// toolPrints runs the operator's tool, and returns its exit status and what it prints.
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

// tool is toolSays of a cluster.
func (r *rig) tool(args ...string) (status int, t told) {
	r.Helper()
	return r.toolSays(&t, args...), t
}

// explained is what the operator's tool says as JSON of pods.
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

// The operator's tool asks the agents by exec, and says that both nodes are well. Without an agent it says so of
// none.
func TestOperatorsTool(t *testing.T) {
	r := newRig(t)
	r.installed()
	r.create(r.meshPod("cart-0"))
	r.throughSidecar("cart-0")
	status, s := r.tool("status", "--wait", "--timeout=2m")
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
	if status, s = r.tool("status", "-n", system); status != 3 || len(s.Items) != 0 { // no node is to have one
		t.Errorf("without agents: status %d: %+v", status, s)
	}
}

// readable has each command write for a person, of a cluster where all is well and the mesh pod cart-0: within 100
// columns, and without colours, because nobody looks at a terminal.
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

// explains is the tool asked about the pod of the mesh, cart-0, and about one outside: both are well until somebody has
// deleted rules in the first one's network.
func (r *rig) explains() {
	r.Helper()
	r.marked("cart-0")
	r.create(r.appPod("plain"))
	r.running("plain")
	ask := func() (status int, e explained) {
		return r.toolSays(&e, "explain", "cart-0", r.namespace+"/plain", "-n", r.namespace), e
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
	// The guard: without it nothing goes past the sidecar by itself.
	r.output(r.inPod("cart-0", "nft", "flush", "chain", "ip", "istio-pod-network", "filter-istio-guard-out"))
	status, e = ask()
	if c = e.Items[0].Cluster; status != 1 || c.State != "not well" || !c.Rules.Looked || c.Rules.OK ||
		len(c.Findings) != 1 || !strings.Contains(c.Findings[0].What, "filter-istio-guard-out") || c.Findings[0].Next == "" ||
		e.Items[1].Cluster.State != "well" {
		r.Errorf("without a rule: status %d: %+v", status, e)
	}
	before, old := c.Record.NetNS, r.pod("cart-0").Status.ContainerStatuses[0].ContainerID
	r.killSandbox("cart-0") // the new one has all of them; until it is there, there may be nothing to find fault with
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

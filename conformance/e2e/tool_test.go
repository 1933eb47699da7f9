package e2e

import (
	"encoding/json"
	"errors"
	"os/exec"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
)

// told is what the operator's tool says as JSON of a cluster.
type told struct {
	Summary struct{ Well, NotWell, NotAsked, Redirected int }
	Items   []struct {
		Name, Verdict, Kernel, Runtime string
		Findings                       []struct{ What, Next string }
		Agent                          struct {
			Agent, Node  string
			Plugin       struct{ Version, SHA256 string }
			Installation struct{ Chained string }
			Ready        bool
		}
	}
}

// tool runs the operator's tool, and returns its exit status with what it says.
func (r *rig) tool(args ...string) (status int, t told) {
	r.Helper()
	cmd := asAdmin("istio-pod-networkctl", append(args, "-o", "json")...)
	out, err := cmd.Output()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		r.Fatal(err)
	}
	if failed != nil {
		status = failed.ExitCode()
	}
	if err := json.Unmarshal(out, &t); err != nil {
		r.Fatalf("%s: status %d, %v: %s", cmd, status, err, out)
	}
	return status, t
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
	r.stopAgents()
	if status, s = r.tool("status", "-n", system); status != 3 || len(s.Items) != 0 { // no node is to have one
		t.Errorf("without agents: status %d: %+v", status, s)
	}
}

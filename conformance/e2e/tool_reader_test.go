package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/plugin/annotation"
	authorizationv1 "k8s.io/api/authorization/v1"
)

// The chart's ClusterRole for readers, and the right that it lacks: to ask the agents.
const (
	readerRole = "istio-pod-network-reader"
	rightToAsk = "the verbs get and create on pods/exec in namespace " + system
)

// asReader gives a user the rights of the chart's reader role, and returns the flag with which the tool acts as that
// user.
func (r *rig) asReader() string {
	r.Helper()
	r.granted("reader", readerRole)
	r.allowed("reader", authorizationv1.ResourceAttributes{Verb: "list", Resource: "nodes"})
	return "--as=reader"
}

// With the chart's reader role alone, istio-pod-networkctl says all that the API server knows. It names the right to
// ask the agents, which is all that the role lacks, and the exit status says that they were not asked.
func TestReader(t *testing.T) {
	r := newRig(t)
	r.installed("rbac.reader=true")
	r.create(r.meshPod("cart-0"))
	r.create(r.appPod("plain"))
	r.marked("cart-0")
	r.running("cart-0")
	r.running("plain")
	as := r.asReader()
	r.readsNodes(as)
	r.readsPods(as)
	r.listsDump(as)
}

// readsNodes runs the commands about nodes.
func (r *rig) readsNodes(as string) {
	r.Helper()
	status, s := r.tool("status", as)
	if all := len(nodes.Nodes); status != 3 || s.Summary.NotAsked != all || len(s.Items) != all || len(s.NotLookedAt) > 0 {
		r.Errorf("status: status %d: %+v", status, s)
	}
	for _, n := range s.Items {
		if n.Kernel == "" || n.Runtime == "" || len(n.Findings) != 1 ||
			!strings.Contains(n.Findings[0].What, "could not be asked") || n.Findings[0].Next != "it needs "+rightToAsk {
			r.Errorf("status: %+v", n)
		}
	}
	var c struct {
		Summary struct{ NotWell int }
		Items   []struct{ Check, Node, Verdict, What, MissingRight string }
	}
	status = r.toolSays(&c, "check", as)
	lacks := map[string]string{} // by node
	well := map[string]bool{}
	for _, item := range c.Items {
		well[item.Check] = well[item.Check] || item.Verdict == "well"
		if item.MissingRight != "" {
			lacks[item.Node] = item.MissingRight
		}
	}
	if status != 3 || c.Summary.NotWell != 0 || len(lacks) != len(nodes.Nodes) {
		r.Errorf("check: status %d: %+v", status, c)
	}
	for _, n := range nodes.Nodes {
		if lacks[n.Name] != "create pods/exec in namespace "+system {
			r.Errorf("check: of %s the right %q is missing: %+v", n.Name, lacks[n.Name], c.Items)
		}
	}
	for _, check := range []string{"kubernetes-version", "admission-api", "nodes", "daemonset", "config", "pod-security",
		"policy"} {
		if !well[check] {
			r.Errorf("check says nothing good of %s: %+v", check, c.Items)
		}
	}
	var v struct {
		Summary struct{ NotAsked int }
		Items   []struct {
			Release  string
			Findings []struct{ Next string }
		}
	}
	status = r.toolSays(&v, "version", as)
	if status != 3 || v.Summary.NotAsked != len(nodes.Nodes) {
		r.Errorf("version: status %d: %+v", status, v)
	}
	for _, n := range v.Items {
		if n.Release == "" || len(n.Findings) != 1 || !strings.Contains(n.Findings[0].Next, rightToAsk) {
			r.Errorf("version: %+v", n)
		}
	}
}

// readsPods runs the commands about pods, for the mesh pod cart-0, which only its agent knows all of, and for the pod
// plain outside the mesh.
func (r *rig) readsPods(as string) {
	r.Helper()
	var e explained
	status := r.toolSays(&e, "explain", "cart-0", "plain", "-n", r.namespace, as)
	if status != 3 || len(e.Items) != 2 || len(e.NotLookedAt) > 0 ||
		e.Operator != "ConfigMap "+system+"/istio-pod-network-config" {
		r.Fatalf("explain: status %d: %+v", status, e)
	}
	for i, state := range []string{"not asked", "well"} {
		c := e.Items[i].Cluster
		if c.State != state || c.Node != r.node.Name || c.Agent == "" || len(c.NotLookedAt) != 1 ||
			!strings.HasPrefix(c.NotLookedAt[0], "record and rules (it needs "+rightToAsk+"): ") {
			r.Errorf("explain: %+v", e.Items[i])
		}
	}
	if c := e.Items[0].Cluster; c.Mark.Status != annotation.Initialized || c.Wait.State != "ended" ||
		len(c.Findings) != 1 || !strings.Contains(c.Findings[0].Next, rightToAsk) {
		r.Errorf("explain: %+v", c)
	}
	var t struct {
		NotLookedAt []string
		Items       []struct {
			Ways   []struct{ OriginalDestination string }
			Kernel struct {
				Looked       bool
				Detail, Next string
			}
		}
	}
	trace := []string{"trace", r.namespace + "/cart-0", "--to", "192.0.2.1:80", as}
	predicts := func() bool {
		return len(t.NotLookedAt) == 0 && len(t.Items) == 1 && len(t.Items[0].Ways) > 0 &&
			t.Items[0].Ways[0].OriginalDestination == "192.0.2.1:80"
	}
	if status = r.toolSays(&t, trace...); status != 0 || !predicts() {
		r.Errorf("trace: status %d: %+v", status, t)
	}
	t.Items = nil
	if status = r.toolSays(&t, append(trace, "--live")...); status != 3 || !predicts() || t.Items[0].Kernel.Looked ||
		!strings.Contains(t.Items[0].Kernel.Detail, "(it needs "+rightToAsk+")") ||
		!strings.Contains(t.Items[0].Kernel.Next, rightToAsk) {
		r.Errorf("trace --live: status %d: %+v", status, t)
	}
}

// listsDump runs sysdump, which reads more than the role allows. It says for each thing that it could not read what
// refused it, and has the rest.
func (r *rig) listsDump(as string) {
	r.Helper()
	var index struct {
		Files  []struct{ Path string }
		Unread []struct{ What, Reason, Next string }
	}
	status, out := r.toolPrints("sysdump", "--list", "--format=json", as)
	if err := json.Unmarshal(out, &index); err != nil {
		r.Fatalf("sysdump: status %d, %v: %s", status, err, out)
	}
	for _, name := range []string{"objects/nodes.yaml", "objects/namespaces.yaml", "objects/daemonsets.yaml",
		"objects/agents.yaml", "pods/" + r.namespace + "/pods.yaml"} {
		if !slices.ContainsFunc(index.Files, func(f struct{ Path string }) bool { return f.Path == name }) {
			r.Errorf("sysdump lacks %s: %+v", name, index.Files)
		}
	}
	unread := map[string]bool{}
	for _, u := range index.Unread {
		what, _, _ := strings.Cut(u.What, " of agent ")
		unread[what] = true
		if !strings.Contains(u.Reason, `User "reader" cannot `) || !strings.Contains(u.Next, "with the rights that") {
			r.Errorf("sysdump: %+v", u)
		}
	}
	for _, what := range []string{"configmaps", "clusterroles", "inspect node", "inspect files", "agent.log", "metrics"} {
		if !unread[what] {
			r.Errorf("sysdump does not say that it could not read %s: %+v", what, index.Unread)
		}
	}
	if status != 1 {
		r.Errorf("sysdump: status %d", status)
	}
}

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/scc"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// toolOnOpenShift has the operator's tool look at a node as OpenShift has them, with its constraints in force and a
// mesh: all is well, its pods are, and those that verify makes prove it.
func (r *rig) toolOnOpenShift(namespace string, apps ...string) {
	r.Helper()
	status, s := r.tool("status", "--wait", "--timeout=2m")
	if status != 0 || s.Summary.Well != 1 || len(s.Items) != 1 || s.Items[0].Agent.Installation.Chained == "" {
		r.Errorf("status: %d: %+v", status, s)
	}
	var c struct {
		Summary struct{ NotWell int }
		Items   []struct{ Check, Node, Verdict, What, Next, MissingRight string }
	}
	if status := r.toolSays(&c, "check"); status != 0 || c.Summary.NotWell != 0 {
		r.Errorf("check: %d: %+v", status, c)
	}
	for _, check := range []string{"daemonset", "config", "pod-security", "policy", "agent", "istiod", "injection",
		"multus"} {
		if !slices.ContainsFunc(c.Items, func(i struct{ Check, Node, Verdict, What, Next, MissingRight string }) bool {
			return i.Check == check && i.Verdict == "well"
		}) {
			r.Errorf("check says nothing good of %s: %+v", check, c.Items)
		}
	}
	var e explained
	if status := r.toolSays(&e, append([]string{"explain", "-n", namespace}, apps...)...); status != 0 ||
		len(e.Items) != len(apps) || len(e.NotLookedAt) > 0 {
		r.Errorf("explain: %d: %+v", status, e)
	}
	for _, pod := range e.Items {
		if c := pod.Cluster; pod.Verdict != "redirected" || c.State != "well" || !c.Rules.Looked || !c.Rules.OK {
			r.Errorf("explain: %+v", pod)
		}
	}
	traced := r.output(asAdmin("istio-pod-networkctl", "trace", apps[0], "-n", namespace, "--from", "app", "--to",
		"203.0.113.1:80"))
	if !strings.Contains(traced, "15001") {
		r.Errorf("trace: %s", traced)
	}
	stop := r.while(func(int) { // as OpenShift gives each namespace its users, a moment after it is made
		patch := fmt.Sprintf(`{"metadata": {"annotations": {%q: %q, %q: %q, %q: %q}}}`, scc.KeyUsers,
			allocated[scc.KeyUsers], scc.KeyGroups, allocated[scc.KeyGroups], scc.KeyLevel, allocated[scc.KeyLevel])
		_, _ = nodes.Client.CoreV1().Namespaces().Patch(r.ctx, verifyNamespace, types.MergePatchType, []byte(patch),
			metav1.PatchOptions{})
		time.Sleep(100 * time.Millisecond)
	})
	defer stop()
	status, v := r.tool("verify")
	if status != 0 || v.Summary.Well != 1 || len(v.Items) != 1 || r.verifyIsThere() {
		r.Errorf("verify: %d: %+v; the namespace is left: %t", status, v, r.verifyIsThere())
	}
	for _, n := range v.Items {
		r.note("%s: %d flows on OpenShift's layout", n.Name, len(n.Flows))
	}
}

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

// toolOnOpenShift runs the commands of istio-pod-networkctl on a node like OpenShift's, with SecurityContextConstraints
// and a mesh. All report that the node and the pods are well, and verify proves it with its own pods.
func (r *rig) toolOnOpenShift(namespace string, apps ...string) {
	r.Helper()
	status, s := r.tool("status", "--wait", waits())
	if status != 0 || s.Summary.Well != 1 || len(s.Items) != 1 || s.Items[0].Agent.Installation.Chained == "" {
		r.Errorf("status: %d: %+v", status, s)
	}
	type item struct{ Check, Node, Verdict, What, Next, MissingRight string }
	var c struct {
		Summary struct{ NotWell int }
		Items   []item
	}
	well := func(check string) bool {
		return slices.ContainsFunc(c.Items, func(i item) bool { return i.Check == check && i.Verdict == "well" })
	}
	if status := r.toolSays(&c, "check"); status != 0 || c.Summary.NotWell != 0 {
		r.Errorf("check: %d: %+v", status, c)
	}
	for _, check := range []string{"daemonset", "config", "pod-security", "policy", "agent", "istiod", "injection",
		"multus"} {
		if !well(check) {
			r.Errorf("check says nothing good of %s: %+v", check, c.Items)
		}
	}
	status, e := r.explain(append([]string{"-n", namespace}, apps...)...)
	if status != 0 || len(e.Items) != len(apps) || len(e.NotLookedAt) > 0 {
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
	if status, live := r.liveTrace(apps[0], "-n", namespace, "--to", "203.0.113.1:80"); status != 0 ||
		len(live.Items) != 1 || !live.Items[0].Kernel.Looked || !live.Items[0].Kernel.Agrees {
		r.Errorf("trace --live: %d: %+v", status, live)
	}
	var fits struct{ Summary struct{ Fit, DoNotFit int } }
	if status := r.toolSays(&fits, "version"); status != 0 || fits.Summary.Fit != 1 || fits.Summary.DoNotFit != 0 {
		r.Errorf("version: %d: %+v", status, fits)
	}
	files := r.dump("--pod=" + namespace + "/" + apps[0])
	for name, text := range map[string]string{"objects/network-attachment-definitions.yaml": "istio-cni",
		"objects/securitycontextconstraints.yaml": "istio-pod-network"} {
		if !strings.Contains(files[name], text) {
			r.Errorf("sysdump: %s has no %s: %.2000s", name, text, files[name])
		}
	}
	defer r.while(func(int) { // OpenShift annotates each new namespace with a delay
		patch := fmt.Sprintf(`{"metadata": {"annotations": {%q: %q, %q: %q, %q: %q}}}`, scc.KeyUsers,
			allocated[scc.KeyUsers], scc.KeyGroups, allocated[scc.KeyGroups], scc.KeyLevel, allocated[scc.KeyLevel])
		for _, namespace := range []string{verifyNamespace, "istio-pod-network-probe"} {
			_, _ = nodes.Client.CoreV1().Namespaces().Patch(r.ctx, namespace, types.MergePatchType, []byte(patch),
				metav1.PatchOptions{})
		}
		time.Sleep(100 * time.Millisecond)
	})()
	c.Items = nil
	status = r.toolSays(&c, "check", "--pre", "--probe-nodes", "--yes", "-n", system, "--nodes="+r.node.Name,
		"--set=kubernetesDistribution=OpenShift", "--set=image.pullPolicy=Never",
		"--set=image.tag="+version(), waits())
	if status != 0 || !well("probe-rules") || !well("probe-bin-dir") {
		r.Errorf("check --pre --probe-nodes: %d: %+v", status, c)
	}
	for _, args := range [][]string{{"verify"}, {"verify", "--istio"}} {
		status, v := r.verifies(args[1:]...)
		if status != 0 || v.Summary.Well != 1 || len(v.Items) != 1 || r.verifyIsThere() {
			r.Errorf("%q: %d: %+v; the namespace is left: %t", args, status, v, r.verifyIsThere())
		}
		for _, n := range v.Items {
			r.note("%s: %d flows by %q on OpenShift's layout", n.Name, len(n.Flows), strings.Join(args, " "))
		}
	}
}

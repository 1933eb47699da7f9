package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What verify makes.
const (
	verifyNamespace = "istio-pod-network-verify"
	verifier        = "istio-pod-network-verifier" // the chart's ClusterRole, and its Role
)

// verifyIsThere reports whether the temporary namespace is.
func (r *rig) verifyIsThere() bool {
	r.Helper()
	_, err := nodes.Client.CoreV1().Namespaces().Get(r.ctx, verifyNamespace, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		r.Fatal(err)
	}
	return err == nil
}

// asVerifier gives somebody the chart's rights of a verifier, and returns the flag by which the tool is that one.
func (r *rig) asVerifier() string {
	r.Helper()
	subjects := []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: "verifier"}}
	meta := metav1.ObjectMeta{Name: "somebody-verifies"}
	all, here := nodes.Client.RbacV1().ClusterRoleBindings(), nodes.Client.RbacV1().RoleBindings(system)
	r.Cleanup(func() {
		must(r, errors.Join(ignoreNotFound(all.Delete(r.ctx, meta.Name, metav1.DeleteOptions{})),
			ignoreNotFound(here.Delete(r.ctx, meta.Name, metav1.DeleteOptions{}))))
	})
	_, err := all.Create(r.ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: meta, Subjects: subjects,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: verifier}}, metav1.CreateOptions{})
	must(r, err)
	_, err = here.Create(r.ctx, &rbacv1.RoleBinding{ObjectMeta: meta, Subjects: subjects,
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: verifier}}, metav1.CreateOptions{})
	must(r, err)
	return "--as=verifier"
}

// ended runs verify until a pod of the mesh is there, and ends it by a signal. It returns its exit status, and what it
// has written for CI.
func (r *rig) ended(by os.Signal) (status int, report string) {
	r.Helper()
	junit := filepath.Join(r.TempDir(), "verify.xml")
	cmd := asAdmin("istio-pod-networkctl", "verify", "--junit", junit)
	must(r, cmd.Start())
	r.Cleanup(func() { _ = cmd.Process.Kill() })
	r.eventually("a pod of the mesh is made", func() bool {
		_, err := nodes.Client.CoreV1().Pods(verifyNamespace).Get(r.ctx, "mesh-0", metav1.GetOptions{})
		return err == nil
	})
	must(r, cmd.Process.Signal(by))
	err := cmd.Wait()
	var failed *exec.ExitError
	if !errors.As(err, &failed) {
		r.Fatalf("ended by %s: %v", by, err)
	}
	written, _ := os.ReadFile(junit) // a killed one writes none
	return failed.ExitCode(), string(written)
}

// The operator's tool proves both nodes by real connections, with the chart's rights of a verifier. A run that is
// interrupted removes what it has made, and what a killed one leaves the next one removes. A node whose runtime does
// not run the plugin is named, and the other is called well.
func TestVerify(t *testing.T) {
	r := newRig(t)
	r.installed("rbac.verifier=true", "repair=off")
	as := r.asVerifier()
	if status, report := r.ended(os.Interrupt); status != 3 || r.verifyIsThere() || !strings.Contains(report, "<error ") {
		t.Errorf("interrupted: status %d; the namespace is left: %t; report: %s", status, r.verifyIsThere(), report)
	}
	if r.ended(os.Kill); !r.verifyIsThere() {
		t.Error("a killed run leaves nothing: nothing is shown by the next one")
	}
	status, v := r.tool("verify", as)
	if status != 0 || v.Summary.Well != len(nodes.Nodes) || len(v.Items) != len(nodes.Nodes) || r.verifyIsThere() {
		t.Errorf("status %d: %+v; the namespace is left: %t", status, v, r.verifyIsThere())
	}
	for _, n := range v.Items {
		families, escapes, shown := map[string]bool{}, 0, 0
		for _, f := range n.Flows {
			families[f.Family] = true
			if strings.HasPrefix(f.Flow, "escape/") {
				if escapes++; f.Verdict == "well" {
					shown++
				}
			} else if f.Verdict != "well" {
				t.Errorf("%s: %+v", n.Name, f)
			}
		}
		if !n.Control || len(families) != 2 || len(n.Flows)-escapes != 16 || shown == 0 || shown != escapes {
			t.Errorf("%s: control %t, families %v, %d flows, %d of %d attempts shown: %+v", n.Name, n.Control, families,
				len(n.Flows)-escapes, shown, escapes, n.Flows)
		}
		r.note("%s: %d flows, %d attempts", n.Name, len(n.Flows)-escapes, escapes)
	}

	r.node = nodes.Nodes[1]
	resume, err := r.node.Stop(daemonSet, cluster.ConfDir)
	resumed := r.until(resume)
	must(r, err)
	r.unchain()
	undo, err := r.node.ReadOnly(cluster.ConfDir) // so that the agent cannot put it back
	undone := r.until(undo)
	must(r, err)
	resumed()
	status, v = r.tool("verify", as)
	if status != 1 || v.Summary.Well != 1 || v.Summary.NotWell != 1 {
		t.Errorf("a node whose entry is removed: status %d: %+v", status, v)
	}
	for _, n := range v.Items {
		switch {
		case n.Name != r.node.Name && n.Verdict != "well",
			n.Name == r.node.Name && (n.Verdict != "not well" || len(n.Findings) == 0 ||
				!strings.Contains(n.Findings[0].What, "init container annotation") ||
				!strings.Contains(n.Findings[0].What, "is absent")):
			t.Errorf("%+v", n)
		}
	}
	undone()
	r.agentsReady()
	if status, v = r.tool("verify", as, "--nodes="+r.node.Name); status != 0 || len(v.Items) != 1 {
		t.Errorf("the same node afterwards: status %d: %+v", status, v)
	}
}

package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// toolChecks runs check and version of istio-pod-networkctl on a healthy cluster.
func (r *rig) toolChecks() {
	r.Helper()
	type item struct{ Check, Node, Verdict, What, MissingRight string }
	var c struct {
		Kind    string
		Summary struct{ NotWell int }
		Items   []item
	}
	status := r.toolSays(&c, "check")
	if status != 0 || c.Kind != "Check" || c.Summary.NotWell != 0 {
		r.Errorf("check: status %d: %+v", status, c)
	}
	well := func(check, node string) bool {
		return slices.ContainsFunc(c.Items, func(i item) bool {
			return i.Check == check && i.Node == node && i.Verdict == "well"
		})
	}
	says := func(words string) bool {
		return slices.ContainsFunc(c.Items, func(i item) bool {
			return i.Verdict == "well" && strings.Contains(i.What, words)
		})
	}
	for _, check := range []string{"kubernetes-version", "admission-api", "nodes", "daemonset", "config", "pod-security",
		"policy", "clock", "versions", "other-meshes", "primary"} {
		if !well(check, "") {
			r.Errorf("check says nothing good of %s: %+v", check, c.Items)
		}
	}
	for _, n := range nodes.Nodes {
		if !well("agent", n.Name) {
			r.Errorf("check says nothing good of the agent on %s: %+v", n.Name, c.Items)
		}
	}
	if slices.ContainsFunc(c.Items, func(i item) bool { return i.MissingRight != "" }) {
		r.Errorf("an administrator lacks rights: %+v", c.Items)
	}
	c.Items = nil
	if status := r.toolSays(&c, "check", "--pre", "-n", system); status != 0 || !well("pod-security", "") ||
		!well("nodes", "") || well("daemonset", "") || !says("the clocks of the API server and of this computer agree") ||
		!says(fmt.Sprintf("the clocks of %d nodes and of the API server agree", len(nodes.Nodes))) {
		r.Errorf("check --pre: status %d: %+v", status, c)
	}
	r.probes()
	var v struct {
		Kind    string
		Summary struct{ Fit, DoNotFit int }
		Items   []struct {
			Agent  string
			Plugin struct{ Version string }
		}
	}
	status = r.toolSays(&v, "version")
	if status != 0 || v.Kind != "Version" || v.Summary.Fit != len(nodes.Nodes) {
		r.Errorf("version: status %d: %+v", status, v)
	}
	for _, n := range v.Items {
		if n.Agent == "" || n.Plugin.Version != n.Agent {
			r.Errorf("version: %+v", v)
		}
	}
}

// probes runs check --probe-nodes, which creates pods on the nodes. The nodes match the chart's values, and do not
// match those of another distribution. The probe leaves nothing in the cluster or on the node.
func (r *rig) probes() {
	r.Helper()
	type item struct {
		Check, Node, Verdict, What, Next string
		Nodes                            []string
	}
	var c struct{ Items []item }
	probe := []string{"check", "--pre", "--probe-nodes", "--yes", "-n", system, "--set=image.pullPolicy=Never",
		"--set=image.tag=" + version(), waits()}
	status := r.toolSays(&c, probe...)
	var names []string
	for _, n := range nodes.Nodes {
		names = append(names, n.Name)
	}
	slices.Sort(names)
	for check, words := range map[string]string{"probe-rules": "takes the rules of a pod, by nftables",
		"probe-conf-dir": cluster.ConfDir + "/10-podnet.conflist", "probe-bin-dir": cluster.BinDir + " has the plugins",
		"probe-image": "the images of agent and plugin can be had"} {
		i := slices.IndexFunc(c.Items, func(i item) bool { return i.Check == check })
		if i < 0 || c.Items[i].Verdict != "well" || !strings.Contains(c.Items[i].What, words) ||
			!slices.Equal(c.Items[i].Nodes, names) {
			r.Errorf("check --probe-nodes says nothing good of %s: status %d: %+v", check, status, c.Items)
		}
	}
	c.Items = nil
	other := r.toolSays(&c, append(probe, "--set=kubernetesDistribution=K3s", "--nodes="+r.node.Name)...)
	i := slices.IndexFunc(c.Items, func(i item) bool { return i.Check == "probe-conf-dir" })
	if status != 0 || other != 1 || i < 0 || c.Items[i].Verdict != "not well" || c.Items[i].Node != r.node.Name ||
		!strings.Contains(c.Items[i].Next, cluster.ConfDir+"/10-podnet.conflist") {
		r.Errorf("check --probe-nodes: status %d, of another distribution %d: %+v", status, other, c.Items)
	}
	_, err := nodes.Client.CoreV1().Namespaces().Get(r.ctx, "istio-pod-network-probe", metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		r.Errorf("the probe has left its namespace: %v", err)
	}
	if _, err := os.Stat(r.node.Path("/var/lib/rancher")); !errors.Is(err, fs.ErrNotExist) {
		r.Errorf("the probe has made a directory: %v", err)
	}
}

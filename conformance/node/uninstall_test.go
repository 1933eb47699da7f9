package node

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/internal/await"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// installed makes a node with the plugin installed, a record of a pod on it, and no agent.
func (r *rig) installed() {
	r.Helper()
	r.withPrimary()
	r.startAgent()
	r.ready()
	r.marked("cart-0", r.put(recordOf(r.mesh("cart-0"))))
	r.agent.end(syscall.SIGTERM)
}

// exists reports whether a file below the rig's directory exists.
func (r *rig) exists(name string) bool {
	_, err := os.Lstat(r.path(name))
	return err == nil
}

// out waits until the agent says with this text that the plugin is out of the node.
func (r *rig) out(words string) {
	r.Helper()
	r.eventually("ready: "+words, func() bool {
		status, body := r.get("/readyz")
		return status == http.StatusOK && strings.Contains(body, "[+] uninstalled: ") && strings.Contains(body, words)
	})
	if data, err := os.ReadFile(r.path("net.d/10-net.conflist")); err != nil || string(data) != primary {
		r.Errorf("the network is not as it was: %s %v", data, err)
	}
}

// keptByLibcni is libcni's cache file of a pod outside the mesh that was made with a spliced entry.
const keptByLibcni = `{"kind": "cniCacheV1", "containerId": "c", "ifName": "eth0", "networkName": "net",
	"config": "eyJuYW1lIjogIm5ldCIsICJwbHVnaW5zIjogW3sidHlwZSI6ICJpc3Rpby1wb2QtbmV0d29yayJ9XX0=",
	"cniArgs": [["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", "plain"]]}`

// nodeEvent reports whether there is an Event with this text about the rig's node.
func (r *rig) nodeEvent(reason, words string) bool {
	r.Helper()
	list, err := r.client.CoreV1().Events("default").List(r.ctx, metav1.ListOptions{
		FieldSelector: "involvedObject.kind=Node,involvedObject.name=" + r.node + ",reason=" + reason})
	must(r, err)
	return len(list.Items) == 1 && strings.Contains(list.Items[0].Message, words)
}

// With --uninstall the agent removes the plugin from its node, keeps it out, and is ready then.
func TestUninstall(t *testing.T) {
	t.Run("containerd", func(t *testing.T) { // it does not need the binary to delete existing pods
		r := newRig(t)
		r.installed()
		r.startAgent("--uninstall", "--runtime-version=containerd://2.1.4")
		r.out("binary and records are gone")
		left, err := os.ReadDir(r.store.Dir)
		if err != nil || len(left) > 0 || r.exists("bin/istio-pod-network") {
			t.Errorf("left: %v %v", left, err)
		}
		// A primary CNI restores a copy of its configuration that has our entry.
		must(t, os.WriteFile(r.path("net.d/10-net.conflist"),
			[]byte(`{"name": "net", "cniVersion": "1.0.0", "plugins": [{"type": "ptp"}, {"type": "istio-pod-network"}]}`),
			0o644))
		r.eventually("it is out again", func() bool {
			data, err := os.ReadFile(r.path("net.d/10-net.conflist"))
			return err == nil && !strings.Contains(string(data), "istio-pod-network")
		})
		status, body := r.get("/healthz")
		if status != http.StatusOK || !strings.Contains(body, "uninstalling") {
			t.Errorf("%d %s", status, body)
		}
	})
	// has cached, for a pod in the mesh or not, the configuration with which it will delete it
	t.Run("another runtime", func(t *testing.T) {
		r := newRig(t)
		r.installed()
		file := r.path("cache/results/net-c-eth0")
		must(t, os.MkdirAll(filepath.Dir(file), 0o755))
		must(t, os.WriteFile(file, []byte(keptByLibcni), 0o600))
		r.startAgent("--uninstall", "--runtime-version=cri-o://1.34.0", "--cni-cache-dir="+r.path("cache"))
		r.out("1 sandbox is there, made with the plugin (such as shop/plain), and cri-o calls the plugin to delete them")
		if records, _ := r.store.List(); len(records) != 1 || !r.exists("bin/istio-pod-network") {
			t.Errorf("%d records; the binary is there: %t", len(records), r.exists("bin/istio-pod-network"))
		}
		r.eventually("an Event on the node says so", func() bool { return r.nodeEvent("PluginStays", "shop/plain") })
		must(t, os.Remove(file))
		r.out("binary and records are gone")
		if r.exists("bin/istio-pod-network") {
			t.Error("the binary is left")
		}
	})
	t.Run("not known", func(t *testing.T) { // nothing is cached, as with a drop-in, so no DEL would come
		r := newRig(t)
		r.installed()
		r.startAgent("--uninstall", "--cni-cache-dir="+r.path("cache"))
		r.out("binary and records are gone")
	})
	t.Run("not possible", func(t *testing.T) {
		r := newRig(t)
		r.installed()
		must(t, os.Remove(r.path("net.d/10-net.conflist")))
		must(t, os.Remove(r.path("net.d")))
		must(t, os.WriteFile(r.path("net.d"), nil, 0o600))
		r.startAgent("--uninstall", "--runtime-version=containerd://2.1.4")
		r.eventually("it says why it is not ready", func() bool {
			status, body := r.get("/readyz")
			return status == http.StatusServiceUnavailable && strings.Contains(body, r.path("net.d"))
		})
	})
}

// grant gives the agent's account more rights, as the chart does for options, and waits until they are in force.
func (r *rig) grant(rules ...rbacv1.PolicyRule) {
	r.Helper()
	meta := metav1.ObjectMeta{GenerateName: "more-" + r.account + "-"}
	role, err := r.client.RbacV1().ClusterRoles().Create(r.ctx, &rbacv1.ClusterRole{ObjectMeta: meta, Rules: rules},
		metav1.CreateOptions{})
	must(r, err)
	_, err = r.client.RbacV1().ClusterRoleBindings().Create(r.ctx,
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta,
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "istio-pod-network-agent", Namespace: r.account}}},
		metav1.CreateOptions{})
	must(r, err)
	must(r, server.InForce(r.ctx, r.account, "istio-pod-network-agent", rules))
}

// uninstallAllRules are the rights that the command needs according to its help.
var uninstallAllRules = []rbacv1.PolicyRule{
	{APIGroups: []string{"apps"}, Resources: []string{"daemonsets"}, ResourceNames: []string{"istio-pod-network-agent"},
		Verbs: []string{"get", "patch"}},
	{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}},
}

// looks returns how often the rig's account has read the DaemonSet.
func (r *rig) looks() (n int) {
	r.Helper()
	requests, err := server.Audit(r.account)
	must(r, err)
	for _, q := range requests {
		if q.Verb == "get" && q.Object.Resource == "daemonsets" {
			n++
		}
	}
	return n
}

// uninstallAll returns the command, not started.
func (r *rig) uninstallAll(flags ...string) (*await.Output, *exec.Cmd) {
	r.Helper()
	cmd := exec.Command(filepath.Join(isolated.BinDir(), "istio-pod-network-agent"),
		append([]string{"uninstall-all", "--namespace=" + r.account,
			"--kubeconfig=" + r.path("kubeconfig")}, flags...)...)
	log := await.NewOutput(r)
	cmd.Stdout, cmd.Stderr = log.File, log.File
	return log, cmd
}

// daemonSet creates the agents' DaemonSet. The test plays its controller.
func (r *rig) daemonSet() *appsv1.DaemonSet {
	r.Helper()
	labels := map[string]string{"app.kubernetes.io/name": "istio-pod-network-agent"}
	d, err := r.client.AppsV1().DaemonSets(r.account).Create(r.ctx, &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "istio-pod-network-agent"},
		Spec: appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "agent", Image: "agent", Env: []corev1.EnvVar{
				{Name: "NODE_NAME", Value: "x"}, {Name: "AGENT_UNINSTALL", Value: "false"},
			}}}},
		}},
	}, metav1.CreateOptions{})
	must(r, err)
	return d
}

// The command makes every agent uninstall, and ends when the last node is done.
func TestUninstallAll(t *testing.T) {
	r := newRig(t)
	r.grant(uninstallAllRules...)
	log, cmd := r.uninstallAll()
	must(t, cmd.Run())
	if !strings.Contains(log.String(), "there is no DaemonSet") {
		t.Errorf("without a DaemonSet: %s", log)
	}
	r.daemonSet()
	log, cmd = r.uninstallAll()
	must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	sets := r.client.AppsV1().DaemonSets(r.account)
	get := func() *appsv1.DaemonSet {
		d, err := sets.Get(r.ctx, "istio-pod-network-agent", metav1.GetOptions{})
		must(t, err)
		return d
	}
	r.eventually("the agents are to uninstall", func() bool { return get().Generation == 2 })
	d := get()
	env := d.Spec.Template.Spec.Containers[0].Env
	if len(env) != 2 || env[0].Name != "NODE_NAME" || env[1].Name != "AGENT_UNINSTALL" || env[1].Value != "true" {
		t.Errorf("%+v", env)
	}
	if u := d.Spec.UpdateStrategy.RollingUpdate; u.MaxUnavailable.String() != "100%" {
		t.Errorf("%+v", u)
	}
	for _, status := range []appsv1.DaemonSetStatus{ // the command must not end with any of these
		{ObservedGeneration: 1, DesiredNumberScheduled: 2, UpdatedNumberScheduled: 2, NumberReady: 2},
		{ObservedGeneration: 2, DesiredNumberScheduled: 2, UpdatedNumberScheduled: 1, NumberReady: 2},
		{ObservedGeneration: 2, DesiredNumberScheduled: 2, UpdatedNumberScheduled: 2, NumberReady: 1},
	} {
		d = get()
		d.Status = status
		_, err := sets.UpdateStatus(r.ctx, d, metav1.UpdateOptions{})
		must(t, err)
		before := r.looks()
		r.eventually("it looks again, twice", func() bool { return r.looks() > before+1 })
		select {
		case err := <-ended:
			t.Fatalf("ended at %+v: %v %s", status, err, log)
		default:
		}
	}
	d = get()
	d.Status = appsv1.DaemonSetStatus{ObservedGeneration: 2, DesiredNumberScheduled: 2, UpdatedNumberScheduled: 2,
		NumberReady: 2}
	_, err := sets.UpdateStatus(r.ctx, d, metav1.UpdateOptions{})
	must(t, err)
	if err := <-ended; err != nil || !strings.Contains(log.String(), "the plugin is out of all 2 nodes") {
		t.Errorf("%v %s", err, log)
	}
}

// After the timeout, the error names the nodes that are not done, and what to do.
func TestUninstallAllLate(t *testing.T) {
	r := newRig(t)
	r.grant(uninstallAllRules...)
	d := r.daemonSet()
	pod := r.podOf("agent-x", nil)
	pod.Namespace, pod.Labels = r.account, d.Spec.Selector.MatchLabels
	r.create(pod)
	d.Status = appsv1.DaemonSetStatus{ObservedGeneration: 2, DesiredNumberScheduled: 1, UpdatedNumberScheduled: 0,
		NumberReady: 1}
	_, err := r.client.AppsV1().DaemonSets(r.account).UpdateStatus(r.ctx, d, metav1.UpdateOptions{})
	must(t, err)
	want := fmt.Sprintf("0 of 1 nodes are done; not yet: %s (pod agent-x: still the agent)", r.node)
	for timeout := 5 * time.Second; ; timeout *= 2 { // on a busy machine it may not even have read the DaemonSet by then
		log, cmd := r.uninstallAll(fmt.Sprint("--timeout=", timeout))
		err := cmd.Run()
		if err != nil && strings.Contains(log.String(), want) && strings.Contains(log.String(), "--no-hooks") {
			return
		}
		if err == nil || timeout > time.Minute {
			t.Fatalf("%v %s", err, log)
		}
	}
}

// onNodes returns rights on nodes, of which the chart adds get, list, watch and patch for the startup taint.
func onNodes(verbs ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: verbs}
}

// taint adds these taints to the node.
func (r *rig) taint(taints ...corev1.Taint) {
	r.Helper()
	data, err := json.Marshal(map[string]any{"spec": map[string]any{"taints": taints}})
	must(r, err)
	_, err = r.client.CoreV1().Nodes().Patch(r.ctx, r.node, types.MergePatchType, data, metav1.PatchOptions{})
	must(r, err)
}

// taints returns the node's taints.
func (r *rig) taints() []corev1.Taint {
	r.Helper()
	node, err := r.client.CoreV1().Nodes().Get(r.ctx, r.node, metav1.GetOptions{})
	must(r, err)
	return node.Spec.Taints
}

// The agent removes the startup taint, and no other one, when it is ready, not earlier, and whenever somebody adds it
// again. If the node does not have it, the agent sends no request.
func TestStartupTaint(t *testing.T) {
	const key = "istio-pod-network-controller/agent-not-ready"
	r := newRig(t)
	other := corev1.Taint{Key: "example.com/other", Effect: corev1.TaintEffectNoSchedule}
	ours := []corev1.Taint{{Key: key, Effect: corev1.TaintEffectNoSchedule}, other,
		{Key: key, Effect: corev1.TaintEffectNoExecute}}
	r.taint(ours...)
	r.grant(onNodes("get", "list", "watch"))
	r.startAgent("--startup-taint=" + key)
	r.eventually("the agent works but is not ready",
		func() bool { status, _ := r.get("/readyz"); return status == http.StatusServiceUnavailable })
	r.eventually("it has made a round, before which an agent that is ready would have tried", func() bool {
		_, body := r.get("/healthz")
		return strings.Contains(body, "last round")
	})
	r.request("GET", "/api/v1/nodes/"+r.node, "") // the API server has answered all earlier requests
	if n := len(r.taints()); n != 3 || strings.Contains(r.agent.log.String(), "startup taint") {
		t.Errorf("%d taints before the agent is ready, and it says\n%s", n, r.agent.log)
	}
	r.withPrimary()
	r.ready()
	r.eventually("it says that it may not", func() bool { return strings.Contains(r.agent.log.String(), "forbidden") })
	r.grant(onNodes("patch"))
	gone := func() bool { left := r.taints(); return len(left) == 1 && left[0].Key == other.Key }
	r.eventually("the taint is gone", gone)
	for range 2 {
		r.taint(ours...)
		r.eventually("the taint is gone again", gone)
	}
	since := time.Now()
	r.rounds(5)
	requests, err := server.Audit(r.account) // of those before since, the last one may be logged only now
	must(t, err)
	for _, q := range requests {
		if q.Verb == "patch" && q.Object.Resource == "nodes" && q.Received.After(since) {
			t.Errorf("a patch of a node without the taint: %+v", q)
		}
	}
}

// An agent with --uninstall removes the startup taint, too: nobody else would, if no agent was ever ready on the node.
func TestStartupTaintUninstalling(t *testing.T) {
	const key = "istio-pod-network-controller/agent-not-ready"
	r := newRig(t).withPrimary()
	r.grant(onNodes("get", "list", "watch", "patch"))
	r.taint(corev1.Taint{Key: key, Effect: corev1.TaintEffectNoSchedule})
	r.startAgent("--uninstall", "--startup-taint="+key, "--runtime-version=containerd://2.1.4")
	r.eventually("the taint is gone", func() bool { return len(r.taints()) == 0 })
}

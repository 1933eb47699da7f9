package patrol

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/internal/podfacts"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kuberecord "k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/flowcontrol"
)

// cachedBy returns a file of libcni's cache for a pod, in the form of version 1.3; 1.1 does not have the network
// namespace.
func cachedBy(libcni, uid, containerID, netns, address string) string {
	return cachedWith(libcni, uid, containerID, netns, address, `{"sidecar.istio.io/status": "{}", "a": "b"}`)
}

// cachedWith is cachedBy for a pod with those annotations.
func cachedWith(libcni, uid, containerID, netns, address, annotations string) string {
	path := ""
	if libcni != "1.1" {
		path = `"netns": "` + netns + `", `
	}
	return `{"kind": "cniCacheV1", "containerId": "` + containerID +
		`", "config": "e30=", "ifName": "eth0", "networkName": "podnet", ` + path +
		`"cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "shop"], ["K8S_POD_NAME", "cart"],
			["K8S_POD_UID", "` + uid + `"]],
		"capabilityArgs": {"io.kubernetes.cri.pod-annotations": ` + annotations + `},
		"result": {"cniVersion": "1.0.0", "unknown": 12345678901234567890,
			"ips": [{"address": "` + address + `/24", "interface": 1}],
		"interfaces": [{"name": "veth1"}, {"name": "eth0", "sandbox": "` + netns + `"}]}}`
}

// repairing returns a Repairer whose plugin is a script. It writes how it was called to the file called, and then runs
// the given script.
func repairing(t *testing.T, mode Mode, script string) (r *Repairer, events *kuberecord.FakeRecorder, dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range []string{"bin", "cache/results", "netns"} {
		await.Must(t, os.MkdirAll(filepath.Join(dir, name), 0o755))
	}
	plugin := "#!/bin/sh\nenv | grep ^CNI_ | sort >" + dir + "/called\ncat >>" + dir + "/called\n" + script
	write(t, filepath.Join(dir, "bin", entry.Type), plugin, 0o755)
	e, err := entry.Parse([]byte(`{"type": "istio-pod-network", "agentSocket": "/x", "capabilities": {"a": true}}`))
	await.Must(t, err)
	w, events := heard()
	return NewRepairer(RepairConfig{
		Mode: mode, CacheDir: filepath.Join(dir, "cache"), NetNSDir: filepath.Join(dir, "netns"),
		Store: record.Store{Dir: filepath.Join(dir, "run")}, Plugin: filepath.Join(dir, "bin", entry.Type), Entry: e,
		Warner: w, Log: agenttest.Quiet(),
		Repairs: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "c"}, []string{"result"}),
	}), events, dir
}

func write(t *testing.T, path, contents string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(contents), mode); err != nil {
		t.Fatal(err)
	}
}

// The plugin is called as the runtime calls it: for the pod's current sandbox, with the result of the plugins before
// it.
func TestRepairCallsThePlugin(t *testing.T) {
	for _, libcni := range []string{"1.1", "1.3"} {
		r, events, dir := repairing(t, Apply, "")
		pod := agenttest.Running("cart")
		results, netns := filepath.Join(dir, "cache", "results"), filepath.Join(dir, "netns")
		for name, contents := range map[string]string{
			"podnet-new-eth0":   cachedBy(libcni, string(pod.UID), "new", netns+"/cni-new", "10.0.0.1"),
			"podnet-gone-eth0":  cachedBy(libcni, string(pod.UID), "gone", netns+"/cni-gone", "10.0.0.1"),
			"podnet-old-eth0":   cachedBy(libcni, string(pod.UID), "old", netns+"/cni-old", "10.0.0.9"),
			"podnet-other-eth0": cachedBy(libcni, "another", "other", netns+"/cni-old", "10.0.0.1"),
			"podnet-torn-eth0":  cachedBy(libcni, string(pod.UID), "torn", netns+"/cni-old", "10.0.0.1")[:200],
			"podnet-junk-eth0":  "{}", "x": "",
			"cni-loopback-new-lo": strings.Replace(cachedBy(libcni, "", "new", "", "127.0.0.1"), "K8S_POD_NAME\"", "x\"", 1),
		} {
			write(t, filepath.Join(results, name), contents, 0o600)
		}
		// its DEL has failed: it is later in the directory, but older
		earlier := filepath.Join(results, "podnet-zz-eth0")
		write(t, earlier, cachedBy(libcni, string(pod.UID), "zz", netns+"/cni-old", "10.0.0.1"), 0o600)
		if err := os.Chtimes(earlier, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(netns, "cni-new"), "", 0o600)
		write(t, filepath.Join(netns, "cni-old"), "", 0o600)
		r.repair(t.Context(), []*corev1.Pod{pod})
		if all := sent(events); len(all) > 0 {
			t.Fatal(all)
		}
		data, err := os.ReadFile(filepath.Join(dir, "called"))
		if err != nil {
			t.Fatal(err)
		}
		environment, config, _ := strings.Cut(string(data), "{")
		for _, line := range []string{
			"CNI_COMMAND=ADD", "CNI_CONTAINERID=new", "CNI_IFNAME=eth0", "CNI_NETNS=" + netns + "/cni-new",
			"CNI_PATH=" + dir + "/bin",
			"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart;K8S_POD_UID=" + string(pod.UID),
		} {
			if !slices.Contains(strings.Split(environment, "\n"), line) {
				t.Errorf("libcni %s: %s is missing in\n%s", libcni, line, environment)
			}
		}
		var called map[string]json.RawMessage
		if err := json.Unmarshal([]byte("{"+config), &called); err != nil {
			t.Fatal(err)
		}
		for key, want := range map[string]string{"cniVersion": `"1.0.0"`, "name": `"podnet"`, "type": `"istio-pod-network"`,
			"agentSocket": `"/x"`, "capabilities": "", "runtimeConfig": ""} {
			if string(called[key]) != want {
				t.Errorf("libcni %s: %s: %s, want %s", libcni, key, called[key], want)
			}
		}
		if !strings.Contains(string(called["prevResult"]), "12345678901234567890") {
			t.Errorf("the previous result was changed: %s", called["prevResult"])
		}
	}
}

// The reason why the plugin cannot be run, or does not succeed, is reported on the pod.
func TestRepairFails(t *testing.T) {
	for name, c := range map[string]struct {
		address, netns, script, want string
	}{
		"another address":            {"10.0.0.2", "netns/cni-1", "", "knows no network of it"},
		"a network namespace gone":   {"10.0.0.1", "netns/cni-2", "", "no such file"},
		"one that is somewhere else": {"10.0.0.1", "netns/../bin", "", "is not in"},
		"the plugin refuses": {"10.0.0.1", "netns/cni-1",
			`echo '{"code": 103, "msg": "writing the packet rules", "details": "no backend"}'; exit 1`,
			"writing the packet rules: no backend"},
		"the plugin breaks": {"10.0.0.1", "netns/cni-1", "echo oops >&2; exit 3", "exit status 3: oops"},
	} {
		r, events, dir := repairing(t, Apply, c.script)
		pod := agenttest.Running("cart")
		write(t, filepath.Join(dir, "netns/cni-1"), "", 0o600)
		write(t, filepath.Join(dir, "cache/results/podnet-1-eth0"), cachedBy("1.3", string(pod.UID), "1", dir+"/"+c.netns,
			c.address), 0o600)
		r.repair(t.Context(), []*corev1.Pod{pod})
		if all := strings.Join(sent(events), "\n"); !strings.Contains(all, c.want) || !strings.Contains(all, eventRepair) {
			t.Errorf("%s: %q, want %q", name, all, c.want)
		}
	}
}

// If the plugin has run for this sandbox, and the agent has not seen its record yet, nothing is done.
func TestRepairAfterTheRecord(t *testing.T) {
	r, events, dir := repairing(t, Apply, "")
	pod := agenttest.Running("cart")
	write(t, filepath.Join(dir, "netns/cni-1"), "", 0o600)
	write(t, filepath.Join(dir, "cache/results/podnet-1-eth0"), cachedBy("1.3", string(pod.UID), "1", dir+"/netns/cni-1",
		"10.0.0.1"), 0o600)
	already := agenttest.RecordFor(pod, "1/1")
	already.ContainerID, already.IfName = "1", "eth0"
	if err := r.Store.Put(already); err != nil {
		t.Fatal(err)
	}
	r.repair(t.Context(), []*corev1.Pod{pod})
	if _, err := os.Stat(filepath.Join(dir, "called")); err == nil {
		t.Error("the plugin was called")
	}
	if all := sent(events); len(all) > 0 {
		t.Error(all)
	}
}

// deleter is an API server that deletes pods, given as namespace/name UID.
type deleter func(name string) error

func (d deleter) DeletePod(_ context.Context, namespace, name string, uid types.UID) error {
	return d(namespace + "/" + name + " " + string(uid))
}

// Only pods that a controller creates again are deleted, and at a limited rate.
func TestRepairDeletes(t *testing.T) {
	r, events, _ := repairing(t, Delete, "")
	var deleted []string
	var failure error
	r.Pods = deleter(func(name string) error { deleted = append(deleted, name); return failure })
	yes := true
	bare, owned, mirror := agenttest.Running("bare"), agenttest.Running("owned"), agenttest.Running("mirror")
	owned.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "cart", Controller: &yes}}
	mirror.OwnerReferences, mirror.Annotations[kube.KeyMirror] = owned.OwnerReferences, "x"
	r.repair(t.Context(), []*corev1.Pod{bare, owned, mirror})
	if want := []string{"shop/owned " + string(owned.UID)}; !slices.Equal(deleted, want) {
		t.Errorf("deleted %q, want %q", deleted, want)
	}
	all := strings.Join(sent(events), "\n")
	for _, want := range []string{eventDeleted, "no controller"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q says nothing of %q", all, want)
		}
	}
	failure = errors.New("forbidden")
	r.repair(t.Context(), []*corev1.Pod{owned})
	if all := strings.Join(sent(events), "\n"); !strings.Contains(all, "deleting it failed: forbidden") {
		t.Errorf("%q", all)
	}
	r.limit, deleted, failure = flowcontrol.NewTokenBucketPassiveRateLimiter(1e-6, 2), nil, nil // for slow machines
	for range 9 {
		r.repair(t.Context(), []*corev1.Pod{owned})
	}
	if len(deleted) != 2 {
		t.Errorf("%d deletions at once", len(deleted))
	}
}

// A pod came too early if its init wait holds it, it has a network and no record, and the plugin would serve it.
func TestCameEarly(t *testing.T) {
	wait := corev1.Container{Name: "istio-validation", Command: []string{"/" + podfacts.WaitProgram}}
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		want   bool
	}{
		"held": {func(*corev1.Pod) {}, true},
		"waiting, running": {func(p *corev1.Pod) {
			p.Status.InitContainerStatuses[0].State.Running = &corev1.ContainerStateRunning{}
		}, true},
		"tried again": {func(p *corev1.Pod) {
			p.Status.InitContainerStatuses[0].State.Terminated = &corev1.ContainerStateTerminated{ExitCode: 126}
		}, true},
		"let go": {func(p *corev1.Pod) {
			p.Status.InitContainerStatuses[0].State.Terminated = &corev1.ContainerStateTerminated{}
		}, false},
		"to be told that it needs nothing": {func(
			p *corev1.Pod) {
			p.Labels = map[string]string{"sidecar.istio.io/inject": "false"}
		}, true},
		"without a wait":              {func(p *corev1.Pod) { p.Spec.InitContainers = nil }, false},
		"without a network":           {func(p *corev1.Pod) { p.Status.PodIPs = nil }, false},
		"not in the mesh":             {func(p *corev1.Pod) { p.Annotations = nil }, false},
		"over":                        {func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, false},
		"host network":                {func(p *corev1.Pod) { p.Spec.HostNetwork = true }, false},
		"in a namespace nobody knows": {func(p *corev1.Pod) { p.Namespace = "unknown" }, false},
		"unreadable": {func(
			p *corev1.Pod) {
			p.Annotations["traffic.sidecar.istio.io/excludeOutboundPorts"] = "x"
		}, false},
	} {
		pod := agenttest.Running("cart")
		pod.Status.StartTime = &metav1.Time{Time: time.Unix(0, 0)} // before the plugin was chained: not a bypass
		pod.Spec.InitContainers = []corev1.Container{wait}
		pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: wait.Name}}
		c.change(pod)
		for mode, want := range map[Mode][]bool{Apply: {c.want, c.want}, Delete: {false, c.want}, Off: {false, c.want}} {
			p := patrolling(t)
			p.Repairer.Mode = mode
			var s sighting
			for i, want := range want {
				if got := p.cameEarly(pod, &s); got != want {
					t.Errorf("%s, %s, look %d: %t", name, mode, i+1, got)
				}
			}
		}
		p := patrolling(t)
		p.Repairer.Mode, p.chained = Apply, time.Time{}
		if p.cameEarly(pod, &sighting{}) {
			t.Errorf("%s: though the plugin is not installed", name)
		}
	}
}

// A waiting pod is repaired in the first round. If it was created after the plugin was chained, the runtime has not run
// the plugin. That is then known at once: the drop-in is given up, and an Event says so.
func TestRepairTellsOfBypass(t *testing.T) {
	for name, c := range map[string]struct {
		start    time.Time
		bypasses int
	}{"made before": {time.Unix(0, 0), 0}, "made after": {time.Now(), 1}} {
		repairer, _, dir := repairing(t, Apply, "")
		pod := agenttest.Running("cart")
		pod.Status.StartTime = &metav1.Time{Time: c.start}
		pod.Spec.InitContainers = []corev1.Container{{Name: "istio-validation"}}
		write(t, filepath.Join(dir, "netns/cni-1"), "", 0o600)
		write(t, filepath.Join(dir, "cache/results/podnet-1-eth0"), cachedBy("1.3", string(pod.UID), "1", dir+"/netns/cni-1",
			"10.0.0.1"), 0o600)
		p := patrolling(t, pod)
		p.Repairer = repairer
		p.round(t.Context(), time.Now())
		if _, err := os.Stat(filepath.Join(dir, "called")); err != nil {
			t.Errorf("%s: the plugin was not called: %v", name, err)
		}
		if n := p.seen[pod.UID].bypass; n >= certain != (c.bypasses == 1) || p.installation.distrusted != c.bypasses {
			t.Errorf("%s: suspected %d times, drop-in distrusted %d times", name, n, p.installation.distrusted)
		}
	}
}

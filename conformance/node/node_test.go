package node

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/plugin/record"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The agent installs the plugin, waits for a primary, and repairs changes. Readiness and metrics show that. When the
// agent ends, it leaves everything in place.
func TestInstallation(t *testing.T) {
	r := newRig(t)
	r.startAgent()
	conflist, binary := r.path("net.d/10-net.conflist"), r.path("bin/istio-pod-network")
	r.eventually("readiness says what is missing", func() bool {
		status, body := r.get("/readyz")
		return status == http.StatusServiceUnavailable &&
			strings.Contains(body, "[-] installed: not ready: waiting: no primary network configuration yet")
	})
	r.withPrimary()
	r.ready()
	if got := r.metric(`installation_repairs_total{cause="entry-missing"}`); got != "1" {
		t.Errorf("entry-missing is %q", got)
	}
	must(t, os.Remove(binary))
	r.eventually("the binary is back",
		func() bool { return r.metric(`installation_repairs_total{cause="binary-missing"}`) == "2" })
	r.ready()
	for round := range 5 {
		must(t, os.WriteFile(conflist, []byte(primary), 0o644))
		r.eventually("our entry is back", func() bool {
			return r.metric(`installation_repairs_total{cause="entry-missing"}`) == fmt.Sprint(round+2)
		})
	}
	r.ready()
	r.agent.end(syscall.SIGTERM)
	if code := r.agent.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit status %d", code)
	}
	data, err := os.ReadFile(conflist)
	if err != nil || !strings.Contains(string(data), "istio-pod-network") {
		t.Errorf("gone with the agent: %s %v", data, err)
	}
	if _, err := os.Stat(binary); err != nil {
		t.Error(err)
	}
}

// setRuntime sets the container runtime in the Node object.
func (r *rig) setRuntime(version string) {
	r.Helper()
	patch := fmt.Appendf(nil, `{"status": {"nodeInfo": {"containerRuntimeVersion": %q}}}`, version)
	_, err := r.client.CoreV1().Nodes().Patch(r.ctx, r.node, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	must(r, err)
}

// started returns the status of a pod whose network was made after that time.
func started(at time.Time) corev1.PodStatus {
	start := metav1.NewTime(at)
	return corev1.PodStatus{
		Phase: corev1.PodPending, StartTime: &start, PodIPs: []corev1.PodIP{{IP: "10.244.0.9"}}, PodIP: "10.244.0.9",
		Conditions: []corev1.PodCondition{{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionTrue,
			LastTransitionTime: start}},
	}
}

// With a runtime that does not read the drop-in, mesh pods start without the plugin. The agent notices and reports
// that, and replaces the drop-in. Pods that need no record do not count.
func TestBypass(t *testing.T) {
	r := newRig(t).withPrimary()
	r.setRuntime("containerd://2.1.4")
	r.startAgent()
	r.ready()
	dropIn := r.path("net.d/net/99-istio-pod-network.conf")
	if _, err := os.Stat(dropIn); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(3 * time.Second) // times in the API are whole seconds
	harmless := map[string]func(*corev1.Pod) *corev1.PodStatus{
		"plain":          func(p *corev1.Pod) *corev1.PodStatus { p.Annotations = nil; return new(started(later)) },
		"host-network":   func(p *corev1.Pod) *corev1.PodStatus { p.Spec.HostNetwork = true; return new(started(later)) },
		"too-early":      func(*corev1.Pod) *corev1.PodStatus { return new(started(later.Add(-time.Hour))) },
		"no-network-yet": func(*corev1.Pod) *corev1.PodStatus { s := started(later); s.PodIPs, s.PodIP = nil, ""; return &s },
		"between": func(*corev1.Pod) *corev1.PodStatus {
			s := started(later)
			s.Conditions[0].Status = corev1.ConditionFalse
			return &s
		},
		"over": func(*corev1.Pod) *corev1.PodStatus { s := started(later); s.Phase = corev1.PodSucceeded; return &s },
		"opted-out": func(p *corev1.Pod) *corev1.PodStatus {
			p.Annotations["istio-pod-network-controller/initialize"] = "false"
			return new(started(later))
		},
		"recorded": func(*corev1.Pod) *corev1.PodStatus { return new(started(later)) },
	}
	for name, change := range harmless {
		pod := r.podOf(name, meshAnnotations())
		status := change(pod)
		pod = r.create(pod)
		if name == "recorded" {
			r.marked(name, r.put(recordOf(pod)))
		}
		r.status(pod, *status)
	}
	last := r.mesh("last")
	r.marked("last", r.put(recordOf(last))) // then the agent knows all of the above
	r.rounds(5)
	if status, body := r.get("/readyz"); status != http.StatusOK {
		t.Fatal(body)
	}
	victim := r.mesh("victim")
	r.status(victim, started(later))
	r.eventually("the event", func() bool { return len(r.events("victim", "MeshBypassed")) == 1 })
	r.eventually("readiness names the pod, and it is counted", func() bool { // at the end of the round
		status, body := r.get("/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "[-] no bypass: "+r.namespace+"/victim:") &&
			r.metric("bypassed_pods") == "1"
	})
	r.eventually("the primary's own file has our entry instead", func() bool {
		data, _ := os.ReadFile(r.path("net.d/10-net.conflist"))
		_, err := os.Stat(dropIn)
		return strings.Contains(string(data), "istio-pod-network") && os.IsNotExist(err)
	})
	if status, body := r.get("/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("the pod is still without rules: %s", body)
	}
	r.agent.end(syscall.SIGTERM) // the next agent on this boot remembers it
	r.startAgent()
	r.eventually("installed", func() bool { _, body := r.get("/readyz"); return strings.Contains(body, "[+] installed") })
	if _, err := os.Stat(dropIn); !os.IsNotExist(err) {
		t.Errorf("the drop-in is back: %v", err)
	}
	r.remove("victim")
	r.ready()
	for name := range harmless {
		if events := r.events(name, "MeshBypassed"); len(events) > 0 {
			t.Errorf("%s: %s", name, events)
		}
	}
}

// events returns the texts of the Events about a pod with a reason.
func (r *rig) events(pod, reason string) []string {
	r.Helper()
	list, err := r.client.CoreV1().Events(r.namespace).List(r.ctx, metav1.ListOptions{})
	must(r, err)
	var texts []string
	for _, e := range list.Items {
		if e.InvolvedObject.Name == pod && e.Reason == reason {
			if e.Count > 1 {
				r.Errorf("%s %s: %d times", pod, reason, e.Count)
			}
			texts = append(texts, e.Message)
		}
	}
	return texts
}

// What an operator should know of a pod is in one Event on the pod.
func TestWarnings(t *testing.T) {
	r := newRig(t).withPrimary()
	r.startAgent("--stuck-after=100ms")
	r.ready()
	shared, other := int64(1337), int64(1000)
	wait := corev1.Container{Name: "istio-validation", Image: "wait", Command: []string{"/istio-pod-network-wait"}}
	for _, c := range []struct {
		name, event, words string
		change             func(*corev1.Pod)
		record             func(*record.Record)
		status             *corev1.PodStatus
	}{
		{name: "no-proxy", event: "OptedInWithoutProxy", words: "no container istio-proxy",
			record: func(rec *record.Record) { rec.Decision, rec.Reason = record.Untouched, "opted-in-no-proxy" }},
		{name: "foreign", event: "ForeignRules", words: "chain ISTIO_OUTPUT",
			record: func(rec *record.Record) {
				rec.Decision, rec.Reason, rec.Detail = record.Untouched, "foreign-rules", "chain ISTIO_OUTPUT"
			}},
		{name: "shared", event: "ProxyUserShared", words: "Container app runs with the user 1337",
			change: func(p *corev1.Pod) {
				p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &shared}
			}},
		{name: "shared-group", event: "ProxyUserShared", words: "the group 1337",
			change: func(p *corev1.Pod) {
				p.Spec.Containers[0].SecurityContext.RunAsUser, p.Spec.Containers[0].SecurityContext.RunAsGroup = &other, &shared
			}},
		{name: "shared-fsgroup", event: "ProxyUserShared", words: "the group 1337 of the sidecar by its fsGroup",
			change: func(p *corev1.Pod) { p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &shared} }},
		{name: "left-out", event: "OwnerGroupLeftOut", words: "Container app runs in the group 1338",
			change: func(p *corev1.Pod) {
				p.Annotations["pod-network-controller.istio.io/excludeOutboundOwnerGroups"] = "1338"
				p.Spec.Containers[0].SecurityContext.RunAsGroup = new(int64(1338))
			}},
		{name: "escalates", event: "PrivilegeEscalationAllowed", words: "In app a program",
			change: func(p *corev1.Pod) { p.Spec.Containers[0].SecurityContext = nil }},
		{name: "invalid", event: "InvalidMeshAnnotation",
			words:  `traffic.sidecar.istio.io/excludeOutboundPorts: invalid value "70000"`,
			change: func(p *corev1.Pod) { p.Annotations["traffic.sidecar.istio.io/excludeOutboundPorts"] = "70000" }},
		{name: "stuck", event: "InitWaitStuck", words: "init container istio-validation is still waiting",
			change: func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{wait} },
			record: func(*record.Record) {},
			status: &corev1.PodStatus{Phase: corev1.PodPending, InitContainerStatuses: []corev1.ContainerStatus{
				{Name: wait.Name, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}}}}},
		{name: "fine", change: func(p *corev1.Pod) { p.Spec.InitContainers = []corev1.Container{wait} },
			record: func(*record.Record) {}},
	} {
		pod := r.podOf(c.name, meshAnnotations())
		if c.change != nil {
			c.change(pod)
		}
		pod = r.create(pod)
		if c.record != nil {
			rec := recordOf(pod)
			c.record(&rec)
			r.marked(c.name, r.put(rec))
		}
		if c.status != nil {
			r.status(pod, *c.status)
		}
		if c.event == "" {
			continue
		}
		r.eventually(c.name+" has the Event "+c.event, func() bool { return len(r.events(c.name, c.event)) > 0 })
		r.rounds(2) // in which it could be reported again
		if texts := r.events(c.name, c.event); len(texts) != 1 || !strings.Contains(texts[0], c.words) {
			t.Errorf("%s: %q, want %q once", c.name, texts, c.words)
		}
	}
	list, err := r.client.CoreV1().Events(r.namespace).List(r.ctx, metav1.ListOptions{})
	must(t, err)
	if len(list.Items) != 9 {
		t.Errorf("%d Events", len(list.Items))
	}
}

// Records whose sandbox is gone are removed, each for its reason. All others stay.
func TestSweep(t *testing.T) {
	r := newRig(t).withPrimary()
	living := r.mesh("living")
	older, newer := recordOf(living), recordOf(living)
	older.Time = newer.Time.Add(-time.Second)
	gone := recordOf(r.mesh("gone"))
	r.remove("gone")
	renamed := recordOf(r.mesh("renamed"))
	r.remove("renamed")
	r.mesh("renamed")
	rebooted := recordOf(living)
	rebooted.NetNS = "11111111-2222-4333-8444-555555555555/4026532000/4711"
	elsewhere := r.podOf("elsewhere", meshAnnotations()) // not in this node's cache, but at the API server
	elsewhere.Spec.NodeName = "another-node"
	kept := recordOf(r.create(elsewhere))
	for _, rec := range []record.Record{older, newer, gone, renamed, rebooted, kept} {
		r.put(rec)
	}
	r.startAgent("--sweep-after=500ms")
	r.marked("living", newer)
	want := []string{newer.ContainerID, kept.ContainerID}
	left := func() []string {
		records, errs := r.store.List()
		if len(errs) > 0 {
			t.Error(errs)
		}
		var ids []string
		for _, rec := range records {
			ids = append(ids, rec.ContainerID)
		}
		return ids
	}
	r.eventually("only the records of sandboxes that may exist are left",
		func() bool { return slices.Equal(left(), want) })
	r.rounds(5) // longer than a record without a pod is kept
	if got := left(); !slices.Equal(got, want) {
		t.Errorf("left: %q", got)
	}
	for reason, count := range map[string]string{"reboot": "1", "superseded": "1", "pod-gone": "2"} {
		if got := r.metric(`records_swept_total{because="` + reason + `"}`); got != count {
			t.Errorf("%s: %q, want %q", reason, got, count)
		}
	}
	r.wrote(living, 1)
}

// The agent's account has the rights that the agent needs, and no others.
func TestRights(t *testing.T) {
	r := newRig(t)
	pod := r.mesh("cart-0")
	for _, c := range []struct {
		verb, path, body string
		want             []int
	}{
		{"GET", "/api/v1/pods?fieldSelector=spec.nodeName%3D" + r.node, "", []int{200}},
		{"GET", "/api/v1/namespaces", "", []int{200}},
		{"GET", "/api/v1/nodes/" + r.node, "", []int{200}},
		{"PATCH", "/status", `{"metadata":{"uid":"` + string(pod.UID) + `","annotations":{"a":"b"}}}`, []int{200}},
		{"PATCH", "/status", `{"metadata":{"uid":"0f3b2a52-0000-4000-8000-000000000000","annotations":{"a":"c"}}}`,
			[]int{409, 422}},
		{"PATCH", "", `{"metadata":{"annotations":{"a":"c"}}}`, []int{403}},
		{"DELETE", "", "", []int{403}},
		{"GET", "/log", "", []int{403}},
		{"GET", "/api/v1/secrets", "", []int{403}},
		{"GET", "/api/v1/nodes", "", []int{403}},
		{"PATCH", "/api/v1/nodes/" + r.node + "/status", `{}`, []int{403}},
		{"PATCH", "/api/v1/namespaces/" + r.namespace, `{}`, []int{403}},
		{"POST", "/api/v1/namespaces/" + r.namespace + "/pods", `{}`, []int{403}},
	} {
		path := c.path
		if !strings.HasPrefix(path, "/api") {
			path = "/api/v1/namespaces/" + r.namespace + "/pods/cart-0" + path
		}
		if got, body := r.request(c.verb, path, c.body); !slices.Contains(c.want, got) {
			t.Errorf("%s %s: %d, want %d: %s", c.verb, path, got, c.want, body)
		}
	}
	if got := r.pod("cart-0").Annotations["a"]; got != "b" {
		t.Errorf("annotation is %q", got)
	}
}

package node

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Opting in a running pod or its namespace is no bypass. The agent, and the one after it, is ready, keeps the drop-in,
// and deletes nothing. Each pod gets an Event that says that it is outside the mesh.
func TestOptInLater(t *testing.T) {
	const pods = 30
	for _, c := range []struct {
		name, selection string
		away            int // number of the pods that are made while there is no agent
		optIn           func(*rig)
		cached          bool // the agent may read libcni's cache
		unheard         bool // there is no agent while they are opted in
	}{
		{"pods", "injected", pods / 2, (*rig).annotatePods, true, false},
		{"pods-of-which-nobody-knows", "injected", pods / 2, (*rig).annotatePods, false, false},
		{"namespace", "annotated", 0, (*rig).optNamespaceIn, true, false},
		{"namespace-without-a-cache", "annotated", 0, (*rig).optNamespaceIn, false, false},
		{"namespace-while-the-agent-is-away", "annotated", 0, (*rig).optNamespaceIn, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			must(t, os.WriteFile(r.path("net.d/10-net.conflist"), []byte(`{"name": "net", "cniVersion": "1.0.0", "plugins": `+
				`[{"type": "loopback"}, {"type": "tuning"}]}`), 0o644))
			r.setRuntime("containerd://2.1.4") // by a drop-in
			r.entry["selection"] = c.selection
			flags := []string{"--repair=delete", "--cni-cache-dir=" + r.path("no-cache")}
			if c.cached {
				flags[1] = "--cni-cache-dir=" + r.path("cache")
			}
			r.startAgent(flags...)
			r.ready()
			for i := range pods {
				if i == pods-c.away {
					r.agent.end(syscall.SIGTERM)
				}
				r.plainPod(fmt.Sprint("cart-", i))
			}
			restart := func() {
				r.agent.end(syscall.SIGTERM)
				r.startAgent(flags...)
				r.ready()
			}
			if c.away > 0 {
				restart()
			}
			if c.unheard {
				r.backWith(func() { c.optIn(r) }, flags...)
			} else {
				c.optIn(r)
			}
			for _, act := range []func(){func() {}, restart, restart} {
				act()
				r.eventually("all are counted", func() bool {
					_, body := r.get("/metrics")
					later, unknown := gauge(body, "opted-in-later"), gauge(body, "unknown")
					return later+unknown == pods
				})
				r.rounds(3)
				if status, body := r.get("/readyz"); status != http.StatusOK || !strings.Contains(body, "outside the mesh") {
					t.Errorf("%d %s", status, body)
				}
			}
			if c.cached && c.away > 0 {
				if _, body := r.get("/metrics"); gauge(body, "unknown") != 0 {
					t.Error("the cache tells of all, and some are unknown")
				}
			}
			if left, err := r.client.CoreV1().Pods(r.namespace).List(r.ctx, metav1.ListOptions{}); err != nil ||
				len(left.Items) != pods {
				t.Errorf("%d pods are left, %v", len(left.Items), err)
			}
			requests, err := server.Audit(r.account)
			must(t, err)
			for _, q := range requests {
				if q.Verb == "delete" && q.Object.Resource == "pods" {
					t.Fatal("the agent deletes pods")
				}
			}
			if log := r.agent.log.String(); strings.Contains(log, "drop-in: falling back") {
				t.Error("the drop-in is given up")
			}
			r.eventually("cart-0 is told", func() bool { // in the background, after it is counted
				return len(r.events("cart-0", "OptedInLater"))+len(r.events("cart-0", "MeshUnknown")) > 0
			})
			if n := len(r.events("cart-0", "MeshBypassed")); n > 0 {
				t.Errorf("%d Events of a bypass", n)
			}
		})
	}
}

// backWith does something while there is no agent, and starts the agent again.
func (r *rig) backWith(do func(), flags ...string) {
	r.Helper()
	r.agent.end(syscall.SIGTERM)
	do()
	r.startAgent(flags...)
	r.ready()
}

// gauge returns how many pods are outside the mesh for that reason, -1 if there is no such metric.
func gauge(metrics, because string) (n int) {
	n = -1
	_, text, found := strings.Cut(metrics, `istio_pod_network_outside_pods{because="`+because+`"} `)
	if found {
		_, _ = fmt.Sscan(text, &n)
	}
	return n
}

// plainPod makes a running pod with a sidecar that is not in the mesh. It runs the plugin for it as a runtime does.
func (r *rig) plainPod(name string) {
	r.Helper()
	pod := r.podOf(name, meshAnnotations())
	pod.Annotations = map[string]string{"example.com/a": "b"}
	pod.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "cart", UID: "0f3b2a52-0000-4000-8000-000000000000",
		Controller: new(true),
	}}
	s := r.sandbox(r.create(pod))
	s.addByRuntime()
	if s.isRecorded() {
		r.Errorf("%s has a record", name)
	}
	status := started(time.Now().Add(3 * time.Second)) // times in the API are whole seconds
	status.Phase, status.PodIP, status.PodIPs = corev1.PodRunning, "127.0.0.1", []corev1.PodIP{{IP: "127.0.0.1"}}
	r.status(s.pod, status)
}

func (r *rig) annotatePods() {
	r.Helper()
	all, err := r.client.CoreV1().Pods(r.namespace).List(r.ctx, metav1.ListOptions{})
	must(r, err)
	for i := range all.Items {
		pod := &all.Items[i]
		pod.Annotations = maps.Clone(pod.Annotations)
		maps.Copy(pod.Annotations, meshAnnotations())
		_, err := r.client.CoreV1().Pods(r.namespace).Update(r.ctx, pod, metav1.UpdateOptions{})
		must(r, err)
	}
}

func (r *rig) optNamespaceIn() {
	r.Helper()
	_, err := r.client.CoreV1().Namespaces().Patch(r.ctx, r.namespace, types.MergePatchType,
		[]byte(`{"metadata": {"annotations": {"istio-pod-network-controller/initialize": "true"}}}`), metav1.PatchOptions{})
	must(r, err)
}

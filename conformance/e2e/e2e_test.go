package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/plugin/record"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The problem: stock Istio's init container is not admitted where Pod Security restricted is enforced.
func TestStockInitIsRejected(t *testing.T) {
	r := newRig(t)
	pod := r.meshPod("stock")
	root := int64(0)
	pod.Spec.InitContainers[0] = corev1.Container{Name: "istio-init", Image: waitImage, SecurityContext: &corev1.SecurityContext{
		RunAsUser: &root, Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN", "NET_RAW"}},
	}}
	_, err := node.Client.CoreV1().Pods(r.namespace).Create(r.ctx, pod, metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "NET_ADMIN") {
		t.Errorf("%v", err)
	}
}

// A mesh pod starts under restricted, its wait is satisfied, and nothing its app ever sends goes past the sidecar. The control
// is the same app outside the mesh, which the detector has to see.
func TestMeshPod(t *testing.T) {
	r := newRig(t)
	r.startAgent()
	r.create(r.appPod("plain"))
	plain := r.running("plain")
	r.eventually("the detector sees the control", func() bool { return outside.from(plain.Status.PodIP) >= 20 })

	want := "drop-in"
	if debian() {
		want = "spliced"
	}
	if _, ready := r.readyz(); !strings.Contains(ready, "("+want+")") {
		t.Errorf("want the plugin %s: %s", want, ready)
	}
	r.create(r.meshPod("cart-0"))
	r.throughSidecar("cart-0")
	pod := r.pod("cart-0")
	if status := pod.Annotations[record.KeyStatus]; status != record.StatusInitialized {
		t.Errorf("status is %q", status)
	}
	if log := r.says("cart-0", "istio-validation"); !strings.Contains(log, "ready after") {
		t.Errorf("the wait says %q", log)
	}
	if marked := r.pod("plain").Annotations; len(marked) > 0 {
		t.Errorf("a pod outside the mesh was touched: %v", marked)
	}
}

// Without the plugin a mesh pod waits, and its app does not start. The plugin that comes is chained at once, and the next pod
// has its rules.
func TestTooEarly(t *testing.T) {
	r := newRig(t)
	uninstall(t)
	r.create(r.meshPod("early"))
	r.eventually("the wait says what is missing", func() bool {
		return strings.Contains(r.says("early", "istio-validation"), "annotation "+record.KeyStatus+" is absent")
	})
	r.startAgent()
	r.create(r.meshPod("late"))
	r.throughSidecar("late")
	early := r.pod("early")
	for _, c := range early.Status.ContainerStatuses {
		if c.State.Waiting == nil || c.RestartCount > 0 {
			t.Errorf("container %s of a pod without rules has started: %+v", c.Name, c.State)
		}
	}
	if n := outside.from(early.Status.PodIP); n > 0 {
		t.Errorf("the pod without rules has reached the peer %d times", n)
	}
}

// uninstall takes the plugin out of the node as an operator would; the node then has its network as it was.
func uninstall(t testing.TB) {
	t.Helper()
	out, err := exec.Command(filepath.Join(isolated.BinDir(), "istio-pod-network-install"), "uninstall", "--purge",
		"--bin-dir="+cluster.BinDir, "--conf-dir="+cluster.ConfDir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// The agent is away: a pod outside the mesh starts, a mesh pod is refused for the time being with a reason, and starts when
// the agent is back.
func TestAgentAway(t *testing.T) {
	r := newRig(t)
	r.startAgent()
	r.stopAgent()
	r.create(r.meshPod("cart-0"))
	r.create(r.appPod("plain"))
	r.running("plain")
	r.eventually("the kubelet says why the mesh pod does not start", func() bool {
		return strings.Contains(r.describe(), "cart-0 FailedCreatePodSandBox") && strings.Contains(r.describe(), "nobody listens on the socket")
	})
	r.startAgent()
	r.throughSidecar("cart-0")
}

// The sandbox is killed: the kubelet makes another, with rules of its own and a mark of its own.
func TestSandboxKilled(t *testing.T) {
	r := newRig(t)
	r.startAgent()
	r.create(r.meshPod("cart-0"))
	r.throughSidecar("cart-0")
	before := r.pod("cart-0")
	records, _ := record.Store{Dir: stateDir}.List()
	for _, rec := range records {
		if rec.PodUID == string(before.UID) {
			// The pause container is the sandbox; its only task is to be there.
			out, err := exec.Command("ctr", "--address=/run/containerd/containerd.sock", "--namespace=k8s.io", "tasks", "kill", "--signal=KILL", rec.ContainerID).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
	}
	r.eventually("the pod is marked for another network namespace", func() bool {
		now := r.pod("cart-0").Annotations
		return now[record.KeyNetNS] != before.Annotations[record.KeyNetNS] && now[record.KeyStatus] == record.StatusInitialized
	})
	r.throughSidecar("cart-0")
}

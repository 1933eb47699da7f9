package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/internal/files"
	"github.com/istio-pod-network/controller/plugin/annotation"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Without agents, a pod outside the mesh starts. A mesh pod does not: an event says why, and it starts when the agents
// are back.
func TestAgentAway(t *testing.T) {
	onEveryNode(t, func(r *rig) {
		r.installed("agentTimeout=1s")
		r.stopAgents()
		r.create(r.meshPod("cart-0"))
		r.seen(r.appPod("plain"))
		r.eventually("the kubelet says why the mesh pod does not start", func() bool {
			events := events(r.namespace)
			return strings.Contains(events, "cart-0 FailedCreatePodSandBox") &&
				// as in docs/troubleshooting.md
				strings.Contains(events, `failed to setup network for sandbox "`) &&
				strings.Contains(events, `: plugin type="istio-pod-network" failed (add): istio-pod-network: `) &&
				strings.Contains(events, "nobody listens on the socket") &&
				strings.Contains(events, "istio-pod-network-install uninstall")
		})
		r.startAgents()
		r.throughSidecar("cart-0")
	})
}

// A sandbox is killed. The kubelet creates another, which gets its own rules and mark.
func TestSandboxKilled(t *testing.T) {
	onEveryNode(t, func(r *rig) {
		r.installed()
		r.seen(r.appPod("plain"))
		r.create(r.meshPod("cart-0"))
		r.throughSidecar("cart-0")
		before := r.pod("cart-0")
		r.killSandbox("cart-0")
		r.eventually("the pod is marked for another network namespace", func() bool {
			now := r.pod("cart-0").Annotations
			return now[annotation.NetNS] != before.Annotations[annotation.NetNS] &&
				now[annotation.Status] == annotation.Initialized
		})
		r.throughSidecar("cart-0")
	})
}

// killSandbox kills the pause container of a mesh pod, which ends its sandbox.
func (r *rig) killSandbox(name string) {
	r.Helper()
	id := r.sandboxOf(name)
	if id == "" {
		r.Fatalf("no record of %s", name)
	}
	r.output(r.node.Ctr("tasks", "kill", "--signal=KILL", id))
}

// Marks that were copied from a running pod, or made up, prove nothing. A pod that has them from its creation on,
// without the admission policy, still waits.
func TestPastedMarks(t *testing.T) {
	r := newRig(t)
	r.installed()
	r.create(r.meshPod("live"))
	r.throughSidecar("live")
	live := r.pod("live").Annotations
	boot, _, _ := strings.Cut(live[annotation.NetNS], "/")
	r.uninstalled()
	hasty := r.meshPod("hasty")
	hasty.Spec.InitContainers = nil
	r.seen(hasty)
	for name, netns := range map[string]string{"copied": live[annotation.NetNS], "forged": boot + "/4026531840/1",
		"bare": ""} {
		pod := r.meshPod(name)
		pod.Annotations[annotation.Status] = annotation.Initialized
		if netns != "" {
			pod.Annotations[annotation.NetNS] = netns
		}
		r.create(pod)
		r.eventually("the wait of "+name+" does not believe it", func() bool {
			return strings.Contains(r.says(name, "istio-validation"), "pasted or stale")
		})
		r.stillWaits(name)
	}
}

// With the admission policy, only agents can set marks. A stolen agent token can only mark pods on that agent's node.
func TestStolenToken(t *testing.T) {
	r := newRig(t)
	r.installed()
	r.seen(r.appPod("plain"))
	pasted := r.meshPod("pasted")
	pasted.Annotations[annotation.Status] = annotation.Initialized
	if made, err := r.dryRun(pasted); err != nil || made.Annotations[annotation.Status] != "" {
		t.Errorf("a pod with a pasted mark: %v, %v", made, err)
	}
	for _, n := range nodes.Nodes {
		r.node = n
		r.create(r.meshPod("on-" + n.Name))
		r.throughSidecar("on-" + n.Name)
	}
	r.node = nodes.Nodes[0]
	thief := r.asAgentOf(r.node)
	for _, c := range []struct {
		what, pod, change, words string
	}{
		{"its own mark again", "on-" + r.node.Name,
			`{"metadata": {"annotations": {"pod-network-controller.istio.io/reason": "x"}}}`, ""},
		{"another node's pod", "on-" + nodes.Nodes[1].Name,
			`{"metadata": {"annotations": {"pod-network-controller.istio.io/reason": "x"}}}`, "own node"},
		{"a label", "on-" + r.node.Name, `{"metadata": {"labels": {"app": "x"}}}`, "labels"},
		{"the status", "on-" + r.node.Name, `{"status": {"phase": "Failed"}}`, "status"},
	} {
		_, err := thief.CoreV1().Pods(r.namespace).Patch(r.ctx, c.pod, types.MergePatchType, []byte(c.change),
			metav1.PatchOptions{}, "status")
		if c.words == "" && err != nil || c.words != "" &&
			(!apierrors.IsForbidden(err) || !strings.Contains(err.Error(), c.words)) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// asAgentOf returns a client with the token of the agent on a node, bound to its pod.
func (r *rig) asAgentOf(n *cluster.Node) *kubernetes.Clientset {
	r.Helper()
	config := rest.AnonymousClientConfig(nodes.Server.Admin())
	_, config.BearerToken = r.agentToken(n, time.Hour)
	config.UserAgent = "istio-pod-network-agent/e2e" // its field manager
	client, err := kubernetes.NewForConfig(config)
	must(r, err)
	return client
}

// agentToken returns the pod of the agent on a node, and a new token bound to that pod.
func (r *rig) agentToken(n *cluster.Node, lifetime time.Duration) (*corev1.Pod, string) {
	r.Helper()
	seconds := int64(lifetime.Seconds())
	for _, pod := range r.agents() {
		if pod.Spec.NodeName != n.Name {
			continue
		}
		token, err := nodes.Client.CoreV1().ServiceAccounts(system).CreateToken(r.ctx, pod.Spec.ServiceAccountName,
			&authenticationv1.TokenRequest{
				Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds,
					BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name,
						UID: pod.UID}},
			}, metav1.CreateOptions{})
		must(r, err)
		return &pod, token.Status.Token
	}
	r.Fatalf("no agent on %s", n.Name)
	return nil, ""
}

// unchain removes the plugin from the network configuration of the rig's node. The agent adds it again.
func (r *rig) unchain() {
	r.Helper()
	dropIns, err := filepath.Glob(r.node.Path(filepath.Join(cluster.ConfDir, "podnet", "*")))
	must(r, err)
	for _, path := range dropIns {
		must(r, os.Remove(path))
	}
	must(r, replace(r.node.Conflist(), []byte(r.node.Primary(cluster.DualStack))))
}

// replace writes a file by a rename, because the runtime watches the directory.
func replace(path string, data []byte) error {
	temp := files.Temp(filepath.Dir(path), ".replacing-")
	return files.Replace(path, temp, bytes.NewReader(data), func(f *os.File) error { return f.Chmod(0o644) })
}

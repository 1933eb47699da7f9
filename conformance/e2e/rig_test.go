package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/apiserver"
	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const peerPort = 8081

// peer is a server outside the pods. It remembers who has reached it.
type peer struct {
	mu   sync.Mutex
	seen map[string]int // connections, by the address of the client
}

func newPeer() (*peer, error) {
	l, err := net.Listen("tcp", fmt.Sprintf("%s:%d", cluster.Address, peerPort))
	if err != nil {
		return nil, err
	}
	p := &peer{seen: map[string]int{}}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			client, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			p.mu.Lock()
			p.seen[client]++
			p.mu.Unlock()
			fmt.Fprintln(c, "peer")
			_ = c.Close()
		}
	}()
	return p, nil
}

// from is how many connections have come from that address.
func (p *peer) from(client string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen[client]
}

// rig is what one test has: a namespace in which Pod Security restricted is enforced.
type rig struct {
	testing.TB
	ctx       context.Context
	namespace string
	agent     *apiserver.Process
	attempts  int // of apps in mesh pods to reach the peer
	leaks     int // those that went past the sidecar
}

var rigs int

// scenarios is what the table at the end is made of.
var scenarios []scenario

type scenario struct {
	name, outcome   string
	took            time.Duration
	attempts, leaks int
}

func (s scenario) row() string {
	return fmt.Sprintf("%s\t%s\t%.1f s\t%d\t%d", s.name, s.outcome, s.took.Seconds(), s.attempts, s.leaks)
}

func newRig(t testing.TB) *rig {
	t.Helper()
	rigs++
	r := &rig{TB: t, ctx: context.Background(), namespace: fmt.Sprint("shop-", rigs)}
	start := time.Now()
	t.Cleanup(func() {
		outcome := map[bool]string{true: "FAILED", false: "ok"}[t.Failed()]
		scenarios = append(scenarios, scenario{t.Name(), outcome, time.Since(start), r.attempts, r.leaks})
	})
	r.makeNamespace(r.namespace, map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})
	t.Cleanup(func() {
		now := int64(0)
		_ = node.Client.CoreV1().Pods(r.namespace).DeleteCollection(r.ctx, metav1.DeleteOptions{GracePeriodSeconds: &now}, metav1.ListOptions{})
	})
	r.eventually("the namespace has its service account", func() bool {
		_, err := node.Client.CoreV1().ServiceAccounts(r.namespace).Get(r.ctx, "default", metav1.GetOptions{})
		return err == nil
	})
	return r
}

func (r *rig) makeNamespace(name string, labels map[string]string) {
	r.Helper()
	_, err := node.Client.CoreV1().Namespaces().Create(r.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{})
	must(r, err)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// patience bounds a wait for something that has to happen; no test passes or fails by how long it took.
const patience = 3 * time.Minute

func (r *rig) eventually(what string, holds func() bool) {
	r.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatalf("never: %s\n%s", what, r.describe())
		}
	}
}

// describe says of every pod what a person would look at.
func (r *rig) describe() string {
	var all strings.Builder
	pods, err := node.Client.CoreV1().Pods(r.namespace).List(r.ctx, metav1.ListOptions{})
	if err != nil {
		return err.Error()
	}
	for _, pod := range pods.Items {
		status, _ := json.Marshal(pod.Status)
		fmt.Fprintf(&all, "%s %v\n%s\n", pod.Name, pod.Annotations, status)
	}
	events, err := node.Client.CoreV1().Events(r.namespace).List(r.ctx, metav1.ListOptions{})
	if err != nil {
		return err.Error()
	}
	for _, e := range events.Items {
		fmt.Fprintf(&all, "%s %s %s\n", e.InvolvedObject.Name, e.Reason, e.Message)
	}
	return all.String()
}

const (
	stateDir = "/run/istio-pod-network"
	account  = "mesh-system"
	listen   = "127.0.0.1:15088"
)

var accountOnce sync.Once

// startAgent starts the agent on the node, by hand and with the rights of agent/rbac.yaml, and waits until it is ready.
func (r *rig) startAgent() {
	r.Helper()
	kubeconfig, entry := filepath.Join(node.Dir, "agent.kubeconfig"), filepath.Join(node.Dir, "entry.json")
	accountOnce.Do(func() {
		r.makeNamespace(account, nil)
		must(r, node.Server.Authorize(r.ctx, filepath.Join(build.Root(), "agent", "rbac.yaml"), account, kubeconfig))
		must(r, os.WriteFile(entry, []byte(`{"type": "istio-pod-network", "agentTimeout": "2s",
			"capabilities": {"io.kubernetes.cri.pod-annotations": true}}`), 0o644))
	})
	var err error
	r.agent, err = apiserver.Run(filepath.Join(node.Dir, "agent.log"), filepath.Join(isolated.BinDir(), "istio-pod-network-agent"),
		"--node-name="+cluster.Name, "--kubeconfig="+kubeconfig, "--network-config="+entry, "--bin-dir="+cluster.BinDir,
		"--conf-dir="+cluster.ConfDir, "--listen="+listen)
	must(r, err)
	agent := r.agent
	r.Cleanup(agent.Kill)
	r.eventually("the agent is ready", func() bool { status, _ := r.readyz(); return status == http.StatusOK })
}

// readyz is what the agent says of its readiness.
func (r *rig) readyz() (status int, body string) {
	response, err := http.Get("http://" + listen + "/readyz")
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	data, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(data)
}

// stopAgent ends the agent as a kubelet does.
func (r *rig) stopAgent() {
	r.Helper()
	must(r, r.agent.Signal(syscall.SIGTERM))
	r.eventually("the agent has ended", r.agent.Ended)
}

// restricted is the security context that Pod Security restricted asks for.
func restricted(user int64) *corev1.SecurityContext {
	no, yes := false, true
	return &corev1.SecurityContext{
		RunAsUser: &user, RunAsGroup: &user, RunAsNonRoot: &yes, AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

// appPod is a pod outside the mesh: its app dials the peer outside, from its first instruction on.
func (r *rig) appPod(name string) *corev1.Pod {
	grace, token := int64(1), false
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: r.namespace, Annotations: map[string]string{}},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: &grace, AutomountServiceAccountToken: &token,
			Containers: []corev1.Container{{
				Name: "app", Image: podImage, ImagePullPolicy: corev1.PullNever, SecurityContext: restricted(1000660001),
				Command: []string{"/podprogram", "app", fmt.Sprintf("%s:%d", cluster.Address, peerPort), "20ms"},
			}},
		},
	}
}

// meshPod is the same as Istio's injection makes it, with the init wait in the place of istio-validation.
func (r *rig) meshPod(name string) *corev1.Pod {
	pod := r.appPod(name)
	pod.Annotations["sidecar.istio.io/status"] = `{"containers":["istio-proxy"]}`
	pod.Spec.InitContainers = []corev1.Container{{
		Name: "istio-validation", Image: waitImage, ImagePullPolicy: corev1.PullNever, SecurityContext: restricted(1337),
		Command: []string{"/istio-pod-network-wait"}, Args: []string{"--mode=annotation", "--timeout=300s"},
		VolumeMounts: []corev1.VolumeMount{{Name: "istio-podinfo", MountPath: "/etc/istio/pod"}},
	}}
	pod.Spec.Containers = append([]corev1.Container{{
		Name: "istio-proxy", Image: podImage, ImagePullPolicy: corev1.PullNever, SecurityContext: restricted(1337), Command: []string{"/podprogram", "sidecar"},
	}}, pod.Spec.Containers...)
	pod.Spec.Volumes = []corev1.Volume{{Name: "istio-podinfo", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{
		Items: []corev1.DownwardAPIVolumeFile{{Path: "annotations", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.annotations"}}},
	}}}}
	return pod
}

func (r *rig) create(pod *corev1.Pod) {
	r.Helper()
	_, err := node.Client.CoreV1().Pods(pod.Namespace).Create(r.ctx, pod, metav1.CreateOptions{})
	must(r, err)
}

func (r *rig) pod(name string) *corev1.Pod {
	r.Helper()
	pod, err := node.Client.CoreV1().Pods(r.namespace).Get(r.ctx, name, metav1.GetOptions{})
	must(r, err)
	return pod
}

// running waits until all containers of the pod run.
func (r *rig) running(name string) *corev1.Pod {
	r.Helper()
	r.eventually("pod "+name+" runs", func() bool {
		pod := r.pod(name)
		ready := len(pod.Status.ContainerStatuses) == len(pod.Spec.Containers)
		for _, c := range pod.Status.ContainerStatuses {
			ready = ready && c.State.Running != nil
		}
		return ready
	})
	return r.pod(name)
}

// says is the log of a container.
func (r *rig) says(pod, container string) string {
	r.Helper()
	log, err := node.Client.CoreV1().Pods(r.namespace).GetLogs(pod, &corev1.PodLogOptions{Container: container}).DoRaw(r.ctx)
	if err != nil {
		return err.Error()
	}
	return string(log)
}

// throughSidecar waits for the app's attempts and fails if one of them went past the sidecar.
func (r *rig) throughSidecar(name string) {
	r.Helper()
	pod := r.running(name)
	want := fmt.Sprintf("answer sidecar-outbound %s:%d\n", cluster.Address, peerPort)
	r.eventually("the app of "+name+" is answered by the sidecar, often", func() bool { return strings.Count(r.says(name, "app"), want) >= 20 })
	log := r.says(name, "app")
	if strings.Contains(log, "answer peer") || outside.from(pod.Status.PodIP) > 0 {
		r.Errorf("leak: %s (%s) has reached the peer %d times past its sidecar:\n%.1000s", name, pod.Status.PodIP, outside.from(pod.Status.PodIP), log)
	}
	r.attempts += strings.Count(log, "answer ")
	r.leaks += outside.from(pod.Status.PodIP)
}

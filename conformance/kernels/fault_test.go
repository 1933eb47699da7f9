package kernels

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/faulttable"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/conformance/internal/sandbox"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/annotation"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// lacksEnv is the environment variable with the modules that were removed from this kernel, separated by spaces.
const lacksEnv = "LACKS"

// patience limits a wait for something that has to happen, also on an emulated processor.
const patience = 5 * time.Minute

const (
	nodeName  = "node-1"
	agentHTTP = "127.0.0.1:15088"
)

// node is a node with an agent, before a stand-in of the API server.
type node struct {
	testing.TB
	dir    string
	kernel string
	entry  map[string]any
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }

// newNode starts the agent of a node whose entry has this backend, and waits until it is ready.
func newNode(t *testing.T, backend string) (*node, *api) {
	t.Helper()
	dir, err := os.MkdirTemp("", "kernel") // TempDir's path is too long for a socket
	await.Must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	await.Must(t, err)
	n := &node{TB: t, dir: dir, kernel: strings.TrimSpace(string(kernel))}
	n.entry = map[string]any{"type": "istio-pod-network", "backend": backend, "agentSocket": n.path("run/agent.sock"),
		"stateDir": n.path("run"), "capabilities": map[string]bool{"io.kubernetes.cri.pod-annotations": true}}
	for _, sub := range []string{"bin", "net.d"} {
		await.Must(t, os.Mkdir(n.path(sub), 0o755))
	}
	entry, err := json.Marshal(n.entry)
	await.Must(t, err)
	api, server := newAPI(n, meshPod())
	t.Cleanup(server.CloseClientConnections) // watches end no earlier
	for name, text := range map[string]string{
		"entry.json":            string(entry),
		"net.d/10-net.conflist": `{"name": "net", "cniVersion": "1.1.0", "plugins": [{"type": "ptp"}]}`,
		"kubeconfig": fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "c",
			"contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}], "users": [{"name": "u", "user": {}}],
			"clusters": [{"name": "c", "cluster": {"server": %q}}]}`, server.URL),
	} {
		await.Must(t, os.WriteFile(n.path(name), []byte(text), 0o600))
	}
	agent := n.agentProgram("--node-name="+nodeName, "--kubeconfig="+n.path("kubeconfig"), "--bin-dir="+n.path("bin"),
		"--runtime-bin-dir="+isolated.BinDir(), "--conf-dir="+n.path("net.d"), "--listen="+agentHTTP, "--patrol=500ms")
	log := await.NewOutput(t)
	agent.Stdout, agent.Stderr = log.File, log.File
	await.Must(t, agent.Start())
	t.Cleanup(func() { _ = agent.Process.Kill(); _ = agent.Wait() })
	await.Explain(t, "log of the agent", log.String)
	await.Eventually(t, patience, "the agent is ready", n.ready)
	return n, api
}

// meshPod returns a mesh pod without a network.
func meshPod() corev1.Pod {
	pod := sandbox.Injected("shop", "cart-0", nodeName)
	pod.TypeMeta, pod.UID, pod.Spec.InitContainers = kind("v1", "Pod"), "0f3b2a52-0000-4000-8000-000000000001", nil
	pod.ResourceVersion = "1"
	started := metav1.Now()
	pod.Status = corev1.PodStatus{Phase: corev1.PodPending, StartTime: &started}
	return *pod
}

// agentProgram returns a command of the agent's program with the plugin's entry.
func (n *node) agentProgram(args ...string) *exec.Cmd {
	return exec.Command(filepath.Join(isolated.BinDir(), "istio-pod-network-agent"),
		append(args, "--network-config="+n.path("entry.json"))...)
}

// readyz returns the agent's readiness.
func (n *node) readyz() (code int, body string) {
	response, err := http.Get("http://" + agentHTTP + "/readyz")
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = response.Body.Close() }()
	var text bytes.Buffer
	_, _ = text.ReadFrom(response.Body)
	return response.StatusCode, text.String()
}

func (n *node) ready() bool { code, _ := n.readyz(); return code == http.StatusOK }

// cni calls the plugin as the runtime does, and returns the text of its error.
func (n *node) cni(s sandbox.Sandbox, verb string) (failed string) {
	n.Helper()
	cmd, err := s.Command(verb, n.entry)
	await.Must(n, err)
	cmd.Env = append(cmd.Env, "PATH="+os.Getenv("PATH"))
	out, err := cmd.Output()
	if err == nil {
		return ""
	}
	var said struct{ Msg, Details string }
	if json.Unmarshal(out, &said) != nil || said.Msg == "" {
		n.Fatalf("%s: %v: %s", verb, err, out)
	}
	return said.Msg + said.Details
}

// run plays the start of a mesh pod. The runtime calls STATUS and makes the pod's network. The kubelet reports the
// result in the pod's status or in an Event.
func (n *node) run(a *api) (failed string) {
	n.Helper()
	pod, _ := a.now()
	s := sandbox.Sandbox{Pod: &pod, ID: sandbox.ID(1), NetNS: n.path("netns"), Annotated: true}
	await.Must(n, isolated.NewNetNS(s.NetNS))
	n.Cleanup(func() { n.cni(s, "DEL"); _ = isolated.RemoveNetNS(s.NetNS) })
	status := n.cni(s, "STATUS")
	failed = n.cni(s, "ADD")
	if (status == "") != (failed == "") {
		n.Errorf("STATUS: %q; ADD: %q", status, failed)
	}
	if failed != "" {
		a.say("FailedCreatePodSandBox", "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup "+
			`network for sandbox: plugin type="istio-pod-network" failed (add): `+failed)
		return failed
	}
	a.change(func(p *corev1.Pod) {
		p.Status.Phase, p.Status.PodIPs = corev1.PodRunning, []corev1.PodIP{{IP: "10.244.1.2"}}
	})
	await.Eventually(n, patience, "the pod is marked", func() bool {
		pod, _ := a.now()
		return pod.Annotations[annotation.Status] == annotation.Initialized
	})
	return ""
}

// shows fails the test unless every command reports a fault as the table says. It may repeat a question, because an
// emulated processor is slow.
func (n *node) shows(f faulttable.Fault) {
	n.Helper()
	for _, command := range faulttable.Kernels.Commands() {
		await.Success(n, patience, command+" says what the table has", func() error { return n.says(f, command) })
	}
}

func (n *node) says(f faulttable.Fault, command string) error {
	cmd := exec.Command(filepath.Join(isolated.BinDir(), "istio-pod-networkctl"),
		append(faulttable.Args(command, "shop/cart-0"), "--kubeconfig="+n.path("kubeconfig"))...)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	exit := new(exec.ExitError)
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	said, err := faulttable.Read(command, out)
	if err == nil {
		err = f.Judge(command, cmd.ProcessState.ExitCode(), said, "", nodeName, "cart-0")
	}
	if err != nil {
		return fmt.Errorf("%w: %s%s", err, out, problems.String())
	}
	return nil
}

// making has the backend that makes each fault of the table, on a kernel without nf_tables.
var making = map[string]string{"the kernel has no nf_tables, and the value backend is nftables": "nftables"}

// If the kernel lacks what a backend needs, the table's commands report it with the table's words and exit status, and
// other commands report that all is well. The agent is not ready, and the plugin is installed. With every other
// backend, and on a complete kernel, all commands report that all is well.
func TestFaultTable(t *testing.T) {
	well := faulttable.Fault{Name: "no fault"}
	lacks := strings.Fields(os.Getenv(lacksEnv))
	cases := map[string]faulttable.Fault{"auto": well}
	if slices.Contains(lacks, "ip_tables") { // then nothing works without nf_tables
		cases = map[string]faulttable.Fault{}
	}
	for _, f := range faulttable.MadeBy(faulttable.Kernels) {
		backend, known := making[f.Name]
		if !known {
			t.Errorf("nobody makes the fault %q", f.Name)
		}
		cases[backend] = well
		if slices.Contains(lacks, "nf_tables") {
			cases[backend] = f
		}
	}
	for _, backend := range slices.Sorted(maps.Keys(cases)) {
		t.Run(backend, func(t *testing.T) {
			f := cases[backend]
			n, api := newNode(t, backend)
			failed := n.run(api)
			code, body := n.readyz()
			if faulty := len(f.Shows) > 0; faulty != (failed != "") || faulty == (code == http.StatusOK) ||
				faulty != strings.Contains(body, "[-] backend") || !strings.Contains(body, "[+] installed") {
				t.Fatalf("%s: ADD %q, and the agent says %d %s", f.Name, failed, code, body)
			}
			n.shows(f)
		})
	}
}

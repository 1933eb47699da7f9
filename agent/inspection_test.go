package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/agent/patrol"
	"github.com/istio-pod-network/controller/install"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/buildinfo"
	"github.com/istio-pod-network/controller/internal/entry"
	"github.com/istio-pod-network/controller/internal/program"
	"github.com/istio-pod-network/controller/plugin/look/report"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Pods are counted by their records of this boot. Pods that are over do not count.
func TestPodsOf(t *testing.T) {
	now := time.Now()
	held := agenttest.MeshPod("held")
	held.Spec.InitContainers = []corev1.Container{{Name: "w", Command: []string{"/istio-pod-network-wait"}}}
	held.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "w", State: corev1.ContainerState{
		Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(now.Add(-time.Hour))}}}}
	over := agenttest.MeshPod("over")
	over.Status.Phase = corev1.PodSucceeded
	pods := []*corev1.Pod{agenttest.MeshPod("a"), agenttest.MeshPod("left"), agenttest.MeshPod("rebooted"), held, over}
	store := record.Store{Dir: t.TempDir()}
	for _, pod := range pods {
		r := agenttest.RecordFor(pod, "1/2")
		r.ContainerID = pod.Name
		switch pod.Name {
		case "left":
			r.Decision, r.Backend = record.Untouched, ""
		case "rebooted":
			r.NetNS = "another-boot/1/2"
		}
		await.Must(t, store.Put(r))
	}
	a := &agent{boot: agenttest.Boot, records: indexed(t, store), options: options{stuckAfter: time.Minute}}
	want := inspect.Pods{Redirected: 2, Left: 1, Backends: []string{"nftables"},
		Waiting:     []string{held.Namespace + "/held"},
		WaitingLong: []string{held.Namespace + "/held"}}
	if got := a.podsOf(pods, now); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// The answer has the last pass, and the last repair even if it was in an earlier pass.
func TestInstallationInspected(t *testing.T) {
	gauge := func() prometheus.Gauge { return prometheus.NewGauge(prometheus.GaugeOpts{Name: "g"}) }
	make := func(off bool) *installation {
		return newInstallation(install.Config{}, off, filepath.Join(t.TempDir(), "m"), nil, gauge(), gauge(),
			counters("c", "", "cause"), agenttest.Quiet())
	}
	if p, s := make(true).inspected(); p != (inspect.Plugin{}) || !reflect.DeepEqual(s, inspect.Installation{}) {
		t.Errorf("left to somebody else: %+v, %+v", p, s)
	}
	i := make(false)
	if p, s := i.inspected(); p != (inspect.Plugin{}) || !reflect.DeepEqual(s, inspect.Installation{Managed: true}) {
		t.Errorf("not looked at yet: %+v, %+v", p, s)
	}
	pass := install.Pass{Status: install.Status{Ready: true, Mode: install.ModeChain, Active: "/net/a.conflist",
		Plugins: []string{"ptp", "istio-cni"}, Chained: install.Spliced,
		Binary: install.Binary{Path: "/bin/p", Current: true, SHA256: "1", Want: "1"}}}
	first := pass
	first.Repaired = []install.Cause{install.CauseBinaryMissing}
	i.report(first)
	i.report(pass)
	p, s := i.inspected()
	if p != (inspect.Plugin{Path: "/bin/p", SHA256: "1", Version: buildinfo.Version()}) || s.Chained != "spliced" ||
		s.Into != "/net/a.conflist" || s.Mode != "chain" || !reflect.DeepEqual(s.Plugins, pass.Plugins) ||
		s.LastRepair == nil || s.LastRepair.Time.IsZero() ||
		!reflect.DeepEqual(s.LastRepair.Causes, []string{"binary-missing"}) {
		t.Errorf("%+v, %+v", p, s)
	}
	pass.Binary.Current = false // another file has the plugin's name
	i.report(pass)
	if p, _ := i.inspected(); p.Version != "" || p.SHA256 != "1" {
		t.Errorf("%+v", p)
	}
}

// inspected runs the command inspect and returns its exit status and output.
func inspected(args ...string) (status int, stdout, stderr string) {
	var out, problems bytes.Buffer
	unset := func(string) string { return "" }
	p := program.Program{Name: "i", Help: inspectHelp, Getenv: unset, Stdout: &out, Stderr: &problems}
	status = inspectCommand(context.Background(), p, args)
	return status, out.String(), problems.String()
}

// told is an agent that answers with what it was asked.
type told struct{}

func (told) inspectedNode() inspect.Node { return inspect.Node{Node: "n", Agent: "v1"} }

func (told) inspectedPod(_ context.Context, namespace, name string) inspect.Pod {
	return inspect.Pod{Namespace: namespace, Name: name}
}

func (told) inspectedRules(_ context.Context, namespace, name string) inspect.KernelRules {
	return inspect.KernelRules{Namespace: namespace, Name: name, Kernel: report.Rules{Why: "none"}}
}

func (told) inspectedTrace(_ context.Context, namespace, name string, p patrol.Packet) inspect.Trace {
	return inspect.Trace{Namespace: namespace, Name: name, Kernel: report.Trace{Why: p.From + " " + p.Proto + " " + p.To}}
}

func (told) inspectedFiles() inspect.Files { return inspect.Files{Directories: []inspect.Directory{}} }

// The command prints the answer of the socket that the entry names. The socket has the access rules of the plugin's
// socket.
func TestInspect(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "own", "agent.sock")
	config := filepath.Join(dir, "network.json")
	text, err := json.Marshal(map[string]string{"type": entry.Type, "agentSocket": socket})
	if err == nil {
		err = os.WriteFile(config, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	status, stdout, stderr := inspected("node", "--network-config="+config)
	if status != program.ExitFailed || stdout != "" || !strings.Contains(stderr, socket+".inspect") {
		t.Errorf("without an agent: %d, %q, %q", status, stdout, stderr)
	}
	l := listenInspect(socket+inspect.SocketSuffix, agenttest.Quiet())
	if info, err := os.Stat(socket + inspect.SocketSuffix); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- serveInspect(ctx, l, told{}) }()
	status, stdout, stderr = inspected("node", "--network-config="+config)
	var n inspect.Node
	err = json.Unmarshal([]byte(stdout), &n)
	if err != nil || status != program.ExitDone || n.Node != "n" || stderr != "" {
		t.Errorf("%d, %q, %q, %v", status, stdout, stderr, err)
	}
	status, stdout, stderr = inspected("pod", "shop/cart-0", "--network-config="+config)
	var p inspect.Pod
	err = json.Unmarshal([]byte(stdout), &p)
	if err != nil || status != program.ExitDone || p.Namespace != "shop" || p.Name != "cart-0" || stderr != "" {
		t.Errorf("%d, %q, %q, %v", status, stdout, stderr, err)
	}
	status, stdout, stderr = inspected("trace", "shop/cart-0", "uid:1:2", "tcp", "[fd00::1]:80",
		"--network-config="+config)
	if status, stdout, _ := inspected("rules", "shop/cart-0", "--network-config="+config); status != program.ExitDone ||
		!strings.HasPrefix(stdout, `{"namespace":"shop","name":"cart-0","kernel":{"why":"none"`) {
		t.Errorf("%d, %q", status, stdout)
	}
	var traced inspect.Trace
	err = json.Unmarshal([]byte(stdout), &traced)
	if err != nil || status != program.ExitDone || traced.Namespace != "shop" || traced.Name != "cart-0" ||
		traced.Kernel.Why != "uid:1:2 tcp [fd00::1]:80" || stderr != "" {
		t.Errorf("%d, %q, %q, %v", status, stdout, stderr, err)
	}
	var out bytes.Buffer
	status, stdout, stderr = inspected("files", "--network-config="+config)
	if status != program.ExitDone || stdout != `{"directories":[]}`+"\n" || stderr != "" {
		t.Errorf("%d, %q, %q", status, stdout, stderr)
	}
	err = askAgent(ctx, socket+inspect.SocketSuffix, "/other", &out)
	if err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("a later tool's question: %v, %q", err, out.String())
	}
	cancel()
	if err := <-served; err != nil && !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

func TestInspectMisused(t *testing.T) {
	for args, want := range map[string]string{
		"":                          "valid: node, files",
		"pods":                      `unexpected argument "pods"; valid: node, files, pod or rules NAMESPACE/NAME, or `,
		"pod":                       "valid: pod NAMESPACE/NAME",
		"pod cart-0":                `pod: invalid value "cart-0"; valid: NAMESPACE/NAME`,
		"pod a/b/c":                 "valid: NAMESPACE/NAME",
		"pod a/b c":                 `unexpected argument "c"`,
		"trace":                     "no pod is named",
		"rules":                     "no pod is named; valid: rules NAMESPACE/NAME",
		"rules a/b c":               `unexpected argument "c"`,
		"trace a/b outside tcp":     "the packet is not told; valid: trace NAMESPACE/NAME SENDER PROTOCOL ADDRESS:PORT",
		"trace a/b outside tcp 1 x": `unexpected argument "x"`,
		"files x":                   `unexpected argument "x"`,
		"node x":                    `unexpected argument "x"`,
		"node --network-config=/no": "--network-config: open /no",
	} {
		status, stdout, stderr := inspected(strings.Fields(args)...)
		if status != program.ExitUsage || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%q: %d, %q, %q", args, status, stdout, stderr)
		}
	}
	if status, stdout, _ := inspected("--help"); status != program.ExitDone || !strings.Contains(stdout, "inspect node") {
		t.Errorf("%d, %q", status, stdout)
	}
}

// Without the chart's file the command uses the default socket.
func TestInspectSocket(t *testing.T) {
	if socket, err := inspectSocket("", "/no"); err != nil || socket != entry.Default().AgentSocket+inspect.SocketSuffix {
		t.Error(socket, err)
	}
}

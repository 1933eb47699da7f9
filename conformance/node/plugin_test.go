package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/conformance/internal/sandbox"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// podSandbox is a sandbox of a pod on the rig's node.
type podSandbox struct {
	*rig
	sandbox.Sandbox
	pod *corev1.Pod
}

func (r *rig) sandbox(pod *corev1.Pod) *podSandbox {
	r.Helper()
	sandboxes++
	netns := r.path(fmt.Sprint("netns-", sandboxes))
	must(r, isolated.NewNetNS(netns))
	r.Cleanup(func() { must(r, isolated.RemoveNetNS(netns)) })
	return &podSandbox{rig: r, pod: pod, Sandbox: sandbox.Sandbox{Pod: pod, ID: sandbox.ID(sandboxes), NetNS: netns,
		Annotated: true}}
}

// cni calls the plugin, and returns its error code, 0 for success, and its text.
func (s *podSandbox) cni(verb string) (code int, text string) {
	s.Helper()
	cmd, err := s.Command(verb, s.entry)
	must(s, err)
	out, err := cmd.Output()
	if err == nil {
		return 0, string(out)
	}
	var failure struct {
		Code int    `json:"code"`
		Msg  string `json:"msg"`
	}
	if json.Unmarshal(out, &failure) != nil {
		s.Fatalf("%s: %v: %s", verb, err, out)
	}
	return failure.Code, failure.Msg
}

// insist calls ADD. As the kubelet does, it calls it again if the agent says that its time is over: on a busy machine
// the API server may need longer than the agent waits.
func (s *podSandbox) insist() (code int, text string) {
	s.Helper()
	for deadline := time.Now().Add(patience); ; {
		code, text = s.cni("ADD")
		if !outOfTime(text) || time.Now().After(deadline) {
			return code, text
		}
	}
}

// outOfTime reports whether an error of ADD says that the agent had no time left for an answer.
func outOfTime(text string) bool { return strings.Contains(text, context.DeadlineExceeded.Error()) }

// add calls ADD, which must succeed with a decision and a reason.
func (s *podSandbox) add(decision, reason string) record.Record {
	s.Helper()
	if code, text := s.insist(); code != 0 {
		s.Fatalf("ADD of %s: code %d: %s", s.pod.Name, code, text)
	}
	rec, err := s.store.Get(s.ID, "eth0")
	must(s, err)
	if rec.Decision != decision || rec.Reason != reason {
		s.Errorf("%s: %s because %s, want %s because %s", s.pod.Name, rec.Decision, rec.Reason, decision, reason)
	}
	return rec
}

// wait runs the init wait in the sandbox without any privilege, with the pod's annotations as the kubelet would mount
// them.
func (s *podSandbox) wait(args ...string) (status int, output string) {
	s.Helper()
	var file strings.Builder
	for key, value := range s.rig.pod(s.pod.Name).Annotations {
		fmt.Fprintf(&file, "%s=%q\n", key, value)
	}
	path := s.path("annotations-" + s.ID)
	must(s, os.WriteFile(path, []byte(file.String()), 0o644))
	must(s, os.Chmod(s.dir, 0o755))
	cmd := exec.Command(filepath.Join(isolated.BinDir(), "istio-pod-network-wait"),
		append([]string{"--file=" + path, "--termination-log="}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000660001, Gid: 1000660001}}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	must(s, isolated.InNetNS(s.NetNS, func() error { _ = cmd.Run(); return nil }))
	return cmd.ProcessState.ExitCode(), out.String()
}

// The whole start of a pod: the plugin asks the agent and writes rules and a record, the agent marks the pod, and the
// init wait in the pod accepts that mark and no other.
func TestFromADDToWait(t *testing.T) {
	r := newRig(t).withPrimary()
	r.startAgent()
	r.ready()
	s := r.sandbox(r.mesh("cart-0"))
	if status, out := s.wait("--mode=annotation", "--timeout=1"); status != 126 {
		t.Errorf("before ADD: status %d: %s", status, out)
	}
	rec := s.add(record.Redirect, "injected")
	r.marked("cart-0", rec)
	if status, out := s.wait("--mode=annotation", "--timeout=60"); status != 0 {
		t.Errorf("after ADD: status %d: %s", status, out)
	}
	// The pod gets a new sandbox. The mark of the old one does not count for it.
	if code, text := s.cni("DEL"); code != 0 {
		t.Error(code, text)
	}
	second := r.sandbox(s.pod)
	if status, out := second.wait("--mode=annotation", "--timeout=1"); status != 126 {
		t.Errorf("with the mark of another sandbox: status %d: %s", status, out)
	}
	r.marked("cart-0", second.add(record.Redirect, "injected"))
	if status, out := second.wait("--mode=annotation", "--timeout=60"); status != 0 {
		t.Errorf("in the new sandbox: status %d: %s", status, out)
	}
	if status, out := s.wait("--mode=annotation", "--timeout=1"); status != 126 {
		t.Errorf("in the old sandbox: status %d: %s", status, out)
	}
	r.wrote(s.pod, 2) // for two sandboxes

	untouched := r.podOf("gateway-0", meshAnnotations())
	untouched.Spec.Containers[1].Args = []string{"proxy", "router"}
	u := r.sandbox(r.create(untouched))
	r.marked("gateway-0", u.add(record.Untouched, "proxy-type"))
	if status, out := u.wait("--mode=annotation", "--timeout=60"); status != 0 || !strings.Contains(out, "proxy-type") {
		t.Errorf("status %d: %s", status, out)
	}
}

// The decision depends on what only the API server knows: containers, labels, the namespace's annotation.
func TestFacts(t *testing.T) {
	r := newRig(t).withPrimary()
	r.entry["selection"] = "annotated"
	r.startAgent()
	r.ready()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: r.namespace + "-in",
		Annotations: map[string]string{"istio-pod-network-controller/initialize": "true"}}}
	id := int64(4242)
	for _, c := range []struct {
		name             string
		change           func(*corev1.Pod)
		decision, reason string
	}{
		{"opted-in", func(p *corev1.Pod) { p.Annotations["istio-pod-network-controller/initialize"] = "true" },
			record.Redirect, "opted-in"},
		{"by-namespace", func(p *corev1.Pod) { p.Namespace = namespace.Name }, record.Redirect, "opted-in"},
		{"neither", func(*corev1.Pod) {}, record.Untouched, "not-opted-in"},
		{"label", func(p *corev1.Pod) {
			p.Namespace, p.Labels = namespace.Name, map[string]string{"sidecar.istio.io/inject": "false"}
		}, record.Untouched, "inject-disabled"},
		{"own-init", func(p *corev1.Pod) {
			p.Namespace = namespace.Name
			p.Spec.InitContainers = []corev1.Container{{Name: "istio-init", Image: "i", SecurityContext: &corev1.SecurityContext{
				Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN"}}}}}
		}, record.Untouched, "own-init"},
		{"wait-of-that-name", func(p *corev1.Pod) {
			p.Namespace, p.Spec.InitContainers = namespace.Name, []corev1.Container{{Name: "istio-init", Image: "i"}}
		}, record.Redirect, "opted-in"},
		{"native-sidecar", func(p *corev1.Pod) {
			always := corev1.ContainerRestartPolicyAlways
			p.Namespace = namespace.Name
			p.Spec.InitContainers = p.Spec.Containers[1:]
			p.Spec.InitContainers[0].RestartPolicy = &always
			p.Spec.Containers = p.Spec.Containers[:1]
		}, record.Redirect, "opted-in"},
		{"no-proxy", func(p *corev1.Pod) {
			p.Namespace, p.Spec.Containers = namespace.Name, p.Spec.Containers[:1]
		}, record.Untouched, "opted-in-no-proxy"},
		{"uid", func(p *corev1.Pod) {
			p.Namespace, p.Spec.Containers[1].SecurityContext.RunAsUser = namespace.Name, &id
		}, record.Redirect, "opted-in"},
		{"envoy-off", func(p *corev1.Pod) {
			p.Namespace, p.Spec.Containers[1].Env = namespace.Name, []corev1.EnvVar{{Name: "DISABLE_ENVOY", Value: "true"}}
		}, record.Untouched, "envoy-disabled"},
		{"tproxy", mode("TPROXY", namespace.Name, nil), record.Redirect, "opted-in"},
		{"mode-none", mode("NONE", namespace.Name, nil), record.Untouched, "mode-none"},
		{"mode-of-the-pod", mode("NONE", namespace.Name, map[string]string{"sidecar.istio.io/interceptionMode": "REDIRECT"}),
			record.Redirect, "opted-in"},
	} {
		if namespace.ResourceVersion == "" {
			// The question comes at once: the watch may not have brought the namespace.
			var err error
			namespace, err = r.client.CoreV1().Namespaces().Create(r.ctx, namespace, metav1.CreateOptions{})
			must(t, err)
		}
		pod := r.podOf(c.name, meshAnnotations())
		c.change(pod)
		for _, relayed := range []bool{true, false} { // Multus passes no annotations
			s := r.sandbox(r.create(pod))
			s.Annotated = relayed
			rec := s.add(c.decision, c.reason)
			if c.name == "uid" && !strings.Contains(string(rec.Spec), `"proxyUID":4242`) {
				t.Errorf("%s", rec.Spec)
			}
			if tproxy := isTransparent(s); tproxy != (c.name == "tproxy") {
				t.Errorf("%s: rules of TPROXY: %t", pod.Name, tproxy)
			}
			pod.Name += "-unrelayed"
		}
	}
}

// mode puts the interception mode into the sidecar's environment, as Istio's injector does, and adds annotations.
func mode(of, namespace string, annotations map[string]string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Namespace = namespace
		p.Spec.Containers[1].Env = []corev1.EnvVar{{Name: "ISTIO_META_INTERCEPTION_MODE", Value: of}}
		maps.Copy(p.Annotations, annotations)
	}
}

// isTransparent reports whether the sandbox has the routing rule that leads marked packets to local sockets, which only
// TPROXY needs.
func isTransparent(s *podSandbox) (is bool) {
	s.Helper()
	must(s, isolated.InNetNS(s.NetNS, func() error {
		rules, err := netlink.RuleList(netlink.FAMILY_V4)
		is = slices.ContainsFunc(rules, func(r netlink.Rule) bool { return r.Mark != 0 })
		return err
	}))
	return is
}

// A pod that was just created is found, by the watch or by a read from the API server. A question about a pod that is
// gone, or whose name another pod has, is refused with that reason.
func TestQuestionsAboutOthers(t *testing.T) {
	r := newRig(t).withPrimary()
	r.startAgent()
	r.ready()
	for i := range 30 {
		r.sandbox(r.mesh(fmt.Sprint("new-", i))).add(record.Redirect, "injected")
	}
	refused := func(pod *corev1.Pod, words string) {
		t.Helper()
		if code, text := r.sandbox(pod).insist(); code != 11 || !strings.Contains(text, words) {
			t.Errorf("code %d: %s; want 11 and %q", code, text, words)
		}
	}
	old := r.mesh("again")
	r.remove("again")
	last := r.mesh("last")
	r.marked("last", r.put(recordOf(last))) // then the agent has seen the end of the other pod
	refused(old, "not found")
	r.mesh("again")
	refused(old, fmt.Sprintf("the one with UID %s is gone", old.UID))
	elsewhere := r.podOf("elsewhere", meshAnnotations())
	elsewhere.Spec.NodeName = "another-node"
	refused(r.create(elsewhere), `is on node "another-node"`)
	if records, _ := r.store.List(); len(records) != 31 {
		t.Errorf("%d records", len(records))
	}
}

// A mesh pod waits while the agent restarts. ADD fails if that takes too long, and succeeds at the next attempt. A pod
// outside the mesh, or in an excluded namespace, does not depend on the agent.
func TestAgentAway(t *testing.T) {
	r := newRig(t).withPrimary()
	r.entry["excludeNamespaces"] = []string{"kube-*", r.namespace + "-out"}
	mesh := r.sandbox(r.mesh("cart-0"))

	r.entry["agentTimeout"] = "300ms"
	code, text := mesh.cni("ADD")
	if code != 11 || !strings.Contains(text, "check that the agent runs on this node") {
		t.Errorf("code %d: %s", code, text)
	}
	r.entry["selection"] = "annotated" // only the agent knows the namespace's annotations
	if code, text := r.sandbox(r.podOf("quiet", nil)).cni("ADD"); code != 11 {
		t.Errorf("selection annotated: code %d: %s", code, text)
	}
	delete(r.entry, "selection")
	r.entry["agentTimeout"] = "1m" // no call below waits that long
	asked, stop := r.mute()
	excluded := r.podOf("cart-0", meshAnnotations())
	excluded.Namespace = r.namespace + "-out"
	optedOut := r.podOf("opted-out", map[string]string{"istio-pod-network-controller/initialize": "false"})
	for _, pod := range []*corev1.Pod{r.podOf("plain", nil), optedOut, excluded} {
		if code, text := r.sandbox(pod).cni("ADD"); code != 0 {
			t.Errorf("%s/%s: code %d: %s", pod.Namespace, pod.Name, code, text)
		}
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("the agent was asked %d times, and is not needed", n)
	}
	if code, text := mesh.cni("STATUS"); code != 0 {
		t.Errorf("STATUS without an agent: code %d: %s", code, text)
	}

	answered := mesh.addInBackground()
	r.eventually("the mesh pod has been tried more than once", func() bool { return asked.Load() > 1 })
	stop()
	r.startAgent()
	if code := <-answered; code != 0 {
		t.Errorf("an agent that comes in time: code %d", code)
	}
	for range 5 { // the agent is killed and restarted while a pod asks
		r.agent.end(syscall.SIGKILL)
		answered := mesh.addInBackground()
		r.startAgent()
		if code := <-answered; code != 0 {
			t.Errorf("an agent that restarts: code %d", code)
		}
	}
}

// addInBackground calls ADD, and returns a channel for its error code, -1 if the test has ended.
func (s *podSandbox) addInBackground() <-chan int {
	answered := make(chan int, 1)
	go func() {
		code := -1
		defer func() { answered <- code }()
		code, _ = s.insist()
	}()
	return answered
}

// mute listens in the agent's place, counts connections and answers none, until it is stopped.
func (r *rig) mute() (asked *atomic.Int64, stop func()) {
	r.Helper()
	must(r, os.MkdirAll(r.store.Dir, 0o700))
	l, err := net.Listen("unix", r.socket())
	must(r, err)
	asked, ended := &atomic.Int64{}, make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			asked.Add(1)
			_ = c.Close()
		}
	}()
	stop = sync.OnceFunc(func() { _ = l.Close(); <-ended })
	r.Cleanup(stop)
	return asked, stop
}

// While the API server is away, the agent answers about pods that the watch has brought, and refuses others in time.
func TestOutage(t *testing.T) {
	r := newRig(t).withPrimary()
	r.startAgent()
	r.ready()
	known := r.sandbox(r.mesh("known"))
	first := r.mesh("first")
	r.marked("first", r.put(recordOf(first))) // then the one before is known, too
	back := r.away()
	rec := known.add(record.Redirect, "injected")
	unknown := r.podOf("unknown", meshAnnotations())
	unknown.UID = "0f3b2a52-0000-4000-8000-000000000000"
	code, text := r.sandbox(unknown).cni("ADD")
	if code != 11 || !strings.Contains(text, "connection refused") {
		t.Errorf("code %d: %s", code, text)
	}
	if status, body := r.get("/readyz"); status != 200 {
		t.Errorf("an outage of the API server is not the node's fault: %s", body)
	}
	back()
	r.marked("known", rec)
}

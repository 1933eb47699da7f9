package node

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/plugin/record"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
)

// The agent installs the plugin, waits for a primary, repairs what is changed, says so in readiness and metrics, and
// leaves everything in place when it ends.
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

// setRuntime says on the node object which container runtime it has.
func (r *rig) setRuntime(version string) {
	r.Helper()
	patch := fmt.Appendf(nil, `{"status": {"nodeInfo": {"containerRuntimeVersion": %q}}}`, version)
	_, err := r.client.CoreV1().Nodes().Patch(r.ctx, r.node, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	must(r, err)
}

// started is the status of a pod whose network was made after that time.
func started(at time.Time) corev1.PodStatus {
	start := metav1.NewTime(at)
	return corev1.PodStatus{
		Phase: corev1.PodPending, StartTime: &start, PodIPs: []corev1.PodIP{{IP: "10.244.0.9"}}, PodIP: "10.244.0.9",
		Conditions: []corev1.PodCondition{{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionTrue,
			LastTransitionTime: start}},
	}
}

// A runtime that does not read the drop-in starts mesh pods without the plugin: that is noticed, reported, and the
// drop-in is given up. Pods that may have no record are not taken for such.
func TestBypass(t *testing.T) {
	r := newRig(t).withPrimary()
	r.setRuntime("containerd://2.1.4")
	r.startAgent()
	r.ready()
	dropIn := r.path("net.d/net/99-istio-pod-network.conf")
	if _, err := os.Stat(dropIn); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(3 * time.Second) // whole seconds
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
	r.marked("last", r.put(recordOf(last))) // all of the above are known now
	r.rounds(5)
	if status, body := r.get("/readyz"); status != http.StatusOK {
		t.Fatal(body)
	}
	victim := r.mesh("victim")
	r.status(victim, started(later))
	r.eventually("the event", func() bool { return len(r.events("victim", "MeshBypassed")) == 1 })
	status, body := r.get("/readyz")
	if status != http.StatusServiceUnavailable || !strings.Contains(body, "[-] no bypass: "+r.namespace+"/victim:") {
		t.Errorf("%d %s", status, body)
	}
	if got := r.metric("bypassed_pods"); got != "1" {
		t.Errorf("bypassed_pods is %q", got)
	}
	r.eventually("the primary's own file has our entry instead", func() bool {
		data, _ := os.ReadFile(r.path("net.d/10-net.conflist"))
		_, err := os.Stat(dropIn)
		return strings.Contains(string(data), "istio-pod-network") && os.IsNotExist(err)
	})
	if status, body := r.get("/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("the pod is still without rules: %s", body)
	}
	r.agent.end(syscall.SIGTERM) // the next agent of this boot remembers
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

// events are the texts of the Events about a pod with a reason.
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

// What a person should know of a pod is said once, on the pod.
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
		r.rounds(2) // in which it might be said again
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

// Records whose sandbox is gone go, each for its reason; all others stay.
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
	elsewhere := r.podOf("elsewhere", meshAnnotations()) // in no cache of this node, but the API server knows it
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
	r.rounds(5) // which take longer than what is swept would have been kept
	if got := left(); !slices.Equal(got, want) {
		t.Errorf("left: %q", got)
	}
	for reason, count := range map[string]string{"reboot": "1", "superseded": "1", "pod-gone": "2"} {
		if got := r.metric(`records_swept_total{because="` + reason + `"}`); got != count {
			t.Errorf("%s: %q, want %q", reason, got, count)
		}
	}
	if _, effective := r.writes(); effective[string(living.UID)] != 1 {
		t.Errorf("%d writes", effective[string(living.UID)])
	}
}

// The agent's account may do what the agent does, and nothing else.
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

// stranger connects to the socket as another user.
func stranger(socket string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", "-test.run=^$")
	cmd.Env = append(os.Environ(), strangerEnv+"="+socket)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	return cmd
}

// Whoever gets at the socket cannot keep the agent from its work, and is told nothing.
func TestHostileSocket(t *testing.T) {
	r := newRig(t).withPrimary()
	r.startAgent()
	r.ready()
	before := r.resident()
	var open []net.Conn
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	dial := func() net.Conn {
		c, err := net.DialTimeout("unix", r.socket(), 10*time.Second)
		if err != nil {
			return nil // its queue is full, as it should be some time
		}
		open = append(open, c)
		return c
	}
	for i := range 1000 { // silent, endless, garbage, and half a question
		if c := dial(); c != nil {
			_ = c.SetWriteDeadline(time.Now().Add(time.Second))
			switch i % 4 {
			case 1:
				_, _ = c.Write([]byte(strings.Repeat("x", 128<<10)))
			case 2:
				_, _ = c.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
			case 3:
				_, _ = c.Write([]byte(`{"version":1,"op":"pod"`))
			}
		}
	}
	s := r.sandbox(r.mesh("cart-0"))
	s.entry["agentTimeout"] = "1m"
	s.add(record.Redirect, "injected") // behind all of them
	if after := r.resident(); after > before+64<<10 {
		t.Errorf("resident memory went from %d to %d KiB", before, after)
	} else {
		t.Logf("%d connections open; resident memory went from %d to %d KiB", len(open), before, after)
	}

	must(t, os.Chmod(r.dir, 0o755))
	must(t, os.Chmod(r.store.Dir, 0o755)) // as if somebody had opened the directory
	must(t, os.Chmod(r.socket(), 0o666))
	out, err := stranger(r.socket()).CombinedOutput()
	must(t, err)
	if !strings.Contains(string(out), "refusing the caller") || strings.Contains(string(out), "cart-0\"") {
		t.Errorf("another user is told: %s", out)
	}
}

// strangerEnv makes the test binary ask the socket it names, and print the answer.
const strangerEnv = "ISTIO_POD_NETWORK_STRANGER"

func ask(socket string) int {
	c, err := net.Dial("unix", socket)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer c.Close()
	fmt.Fprintln(c, `{"version":1,"op":"pod","namespace":"shop","name":"cart-0"}`)
	line, _ := bufio.NewReader(c).ReadString('\n')
	fmt.Print(line)
	return 0
}

// resident is the agent's resident memory in KiB.
func (r *rig) resident() int {
	r.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.agent.cmd.Process.Pid))
	must(r, err)
	var kib int
	for line := range strings.Lines(string(status)) {
		_, _ = fmt.Sscanf(line, "VmRSS: %d kB", &kib)
	}
	return kib
}

// Wrong flags are told by name, value and what would be valid; the help tells what a person needs.
func TestCommandLine(t *testing.T) {
	run := func(env []string, args ...string) (int, string) {
		cmd := exec.Command(filepath.Join(isolated.BinDir(), "istio-pod-network-agent"), args...)
		cmd.Env = env
		out, _ := cmd.CombinedOutput()
		return cmd.ProcessState.ExitCode(), string(out)
	}
	entry := filepath.Join(t.TempDir(), "entry.json")
	must(t, os.WriteFile(entry, []byte(`{"type": "istio-pod-network", "selection": "all"}`), 0o600))
	refused := filepath.Join(t.TempDir(), "refused.json") // which only the plugin knows
	must(t, os.WriteFile(refused, []byte(`{"type": "istio-pod-network", "backend": "ebpf"}`), 0o600))
	plugin := filepath.Join(isolated.BinDir(), "istio-pod-network")
	for _, c := range []struct {
		args   []string
		status int
		words  []string
	}{
		{[]string{"--node-name=n", "--source=" + plugin, "--network-config=" + refused}, 2,
			[]string{"--network-config", "backend", `"ebpf"`, "auto, nftables"}},
		{[]string{"--node-name=n", "--source=" + plugin, "--network-config=" + refused, "--no-install"}, 1,
			[]string{"reading the credentials"}},
		{nil, 2, []string{"--node-name", "the name of this node's object"}},
		{[]string{"--node-name=n", "--log-format=xml"}, 2, []string{"--log-format", `"xml"`, "text or json"}},
		{[]string{"--node-name=n", "--listen=x"}, 2, []string{"--listen", `"x"`, ":15088"}},
		{[]string{"--node-name=n", "--patrol=0s"}, 2, []string{"--patrol", `"0s"`, "more than 0"}},
		{[]string{"--node-name=n", "--mode=x"}, 2, []string{`--mode: invalid value "x"`, "chain, nad or aux"}},
		{[]string{"--node-name=n", "--network-config=" + entry}, 2, []string{"--network-config", "selection", `"all"`,
			"injected or annotated"}},
		{[]string{"--node-name=n", "--network-config=/none"}, 2, []string{"/none"}},
		{[]string{"--node-name=n", "now"}, 2, []string{`unexpected argument "now"`}},
		{[]string{"--node-name=n"}, 1, []string{"reading the credentials", "--kubeconfig"}},
		{[]string{"--node-name=n", "--uninstall", "--no-install"}, 2,
			[]string{"--uninstall and --no-install exclude each other"}},
		{[]string{"--nonsense"}, 2, []string{"nonsense"}},
		{[]string{"uninstall-all"}, 2, []string{"uninstall-all", "--namespace"}},
		{[]string{"uninstall-all", "--namespace=n", "--timeout=0s"}, 2, []string{"--timeout", `"0s"`, "more than 0"}},
		{[]string{"uninstall-all", "--namespace=n", "now"}, 2, []string{`unexpected argument "now"`}},
		{[]string{"uninstall-all", "--help"}, 0, []string{"AGENT_DAEMONSET", "-timeout", "Exit status"}},
		{[]string{"--version"}, 0, []string{"istio-pod-network-agent"}},
		{[]string{"--help"}, 0, []string{"AGENT_NODE_NAME", "-stuck-after", "/readyz", "uninstall-all", "Exit status"}},
	} {
		status, out := run(nil, c.args...)
		if status != c.status {
			t.Errorf("%q: status %d, want %d", c.args, status, c.status)
		}
		for _, word := range c.words {
			if !strings.Contains(out, word) {
				t.Errorf("%q does not say %q:\n%s", c.args, word, out)
			}
		}
		if c.status == 2 && strings.Count(out, "\n") > 1 {
			t.Errorf("%q takes more than a line to say what is wrong:\n%s", c.args, out)
		}
	}
	if status, out := run([]string{"AGENT_NODE_NAME=n", "AGENT_API_BURST=many"}); status != 2 ||
		!strings.Contains(out, `AGENT_API_BURST: invalid value "many"`) {
		t.Errorf("status %d: %s", status, out)
	}
}

// The agent listens at the port of health and metrics and at the plugin's socket, and nowhere else; and no credential
// is among what it writes to the node.
func TestExposure(t *testing.T) {
	r := newRig(t).withPrimary()
	r.startAgent()
	r.ready()
	r.sandbox(r.mesh("cart-0")).add(record.Redirect, "injected")
	proc := fmt.Sprintf("/proc/%d/", r.agent.cmd.Process.Pid)
	own := map[string]bool{}
	files, err := os.ReadDir(proc + "fd")
	must(t, err)
	for _, file := range files {
		target, _ := os.Readlink(proc + "fd/" + file.Name())
		if inode, found := strings.CutPrefix(target, "socket:["); found {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	var listens []string
	// the columns of what is bound, of its state or flags, and of the inode (Documentation/networking/proc_net_tcp.rst)
	for name, c := range map[string]struct {
		bound, state, inode int
		open                string
	}{
		"tcp": {1, 3, 9, "0A"}, "tcp6": {1, 3, 9, "0A"}, "udp": {1, 3, 9, "07"}, "udp6": {1, 3, 9, "07"},
		"raw": {1, 3, 9, "07"}, "raw6": {1, 3, 9, "07"}, "packet": {4, 1, 8, "3"}, "unix": {7, 3, 6, "00010000"},
	} {
		data, err := os.ReadFile(proc + "net/" + name)
		if !errors.Is(err, fs.ErrNotExist) { // as in a kernel without IPv6
			must(t, err)
		}
		for line := range strings.Lines(string(data)) {
			if w := strings.Fields(line); len(w) > max(c.bound, c.inode) && w[c.state] == c.open && own[w[c.inode]] {
				listens = append(listens, name+" "+w[c.bound])
			}
		}
	}
	slices.Sort(listens)
	// where the socket is made before it is named
	want := []string{"tcp 0100007F:3AF0", "unix " + r.socket() + ".inspect.new", "unix " + r.socket() + ".new"}
	if !slices.Equal(listens, want) {
		t.Errorf("the agent listens at %q, want %q", listens, want)
	}
	config, err := clientcmd.BuildConfigFromFlags("", r.path("kubeconfig"))
	must(t, err)
	if config.BearerToken == "" {
		t.Fatal("the agent has no token")
	}
	seen := 0
	for _, dir := range []string{"bin", "net.d", "run"} {
		must(t, filepath.WalkDir(r.path(dir), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			seen++
			data, err := os.ReadFile(path)
			if strings.Contains(string(data), config.BearerToken) {
				t.Errorf("%s has the agent's token", path)
			}
			return err
		}))
	}
	if seen < 4 {
		t.Errorf("%d files: plugin, configuration, record and the installation's are not among them", seen)
	}
}

package node

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/conformance/internal/sandbox"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/record"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// rig is a test's node with its directories, and a namespace of its own.
type rig struct {
	testing.TB
	ctx       context.Context
	client    *kubernetes.Clientset
	dir       string
	node      string
	namespace string
	account   string // namespace of the agent's service account
	store     record.Store
	entry     map[string]any // the plugin's
	agent     *agent
}

var rigs int

func newRig(t testing.TB) *rig {
	t.Helper()
	rigs++
	dir, err := os.MkdirTemp("", "node") // TempDir's path is too long for a socket
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	client, err := kubernetes.NewForConfig(server.Admin())
	must(t, err)
	r := &rig{
		TB: t, ctx: context.Background(), client: client, dir: dir, node: fmt.Sprint("node-", rigs),
		namespace: fmt.Sprint("shop-", rigs),
		account:   fmt.Sprint("mesh-", rigs), store: record.Store{Dir: filepath.Join(dir, "run")},
	}
	r.entry = map[string]any{
		"type": "istio-pod-network", "capabilities": map[string]bool{"io.kubernetes.cri.pod-annotations": true},
		"agentSocket": r.socket(), "stateDir": r.store.Dir, "agentTimeout": "20s",
	}
	for _, sub := range []string{"bin", "net.d"} {
		must(t, os.Mkdir(r.path(sub), 0o755))
	}
	for _, name := range []string{r.namespace, r.account} {
		_, err := client.CoreV1().Namespaces().Create(r.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}},
			metav1.CreateOptions{})
		must(t, err)
	}
	must(t, server.Authorize(r.ctx, filepath.Join(build.Root(), "agent", "rbac.yaml"), r.account, r.path("kubeconfig")))
	_, err = client.CoreV1().Nodes().Create(r.ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: r.node}},
		metav1.CreateOptions{})
	must(t, err)
	return r
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }
func (r *rig) socket() string          { return filepath.Join(r.dir, "run", "agent.sock") }

// primary is a network into which the agent can chain the plugin.
const primary = `{"name": "net", "cniVersion": "1.0.0", "plugins": [{"type": "ptp"}]}`

// agent is a running agent.
type agent struct {
	cmd  *exec.Cmd
	log  *await.Output
	done chan struct{}
}

// startAgent starts the agent on the rig's node. It ends with the test.
func (r *rig) startAgent(flags ...string) *agent {
	r.Helper()
	entry, err := json.Marshal(r.entry)
	must(r, err)
	must(r, os.WriteFile(r.path("entry.json"), entry, 0o600))
	args := append([]string{
		"--node-name=" + r.node, "--kubeconfig=" + r.path("kubeconfig"), "--network-config=" + r.path("entry.json"),
		"--bin-dir=" + r.path("bin"), "--runtime-bin-dir=" + isolated.BinDir(),
		"--conf-dir=" + r.path("net.d"), "--listen=127.0.0.1:15088", "--patrol=200ms",
		"--log-level=debug",
	}, flags...)
	a := &agent{
		cmd: exec.Command(filepath.Join(isolated.BinDir(), "istio-pod-network-agent"), args...), log: await.NewOutput(r),
		done: make(chan struct{}),
	}
	a.cmd.Stdout, a.cmd.Stderr = a.log.File, a.log.File
	must(r, a.cmd.Start())
	go func() { _ = a.cmd.Wait(); close(a.done) }()
	r.agent = a
	await.Explain(r, "log of the agent", a.log.String)
	r.Cleanup(func() { a.end(syscall.SIGKILL) })
	return a
}

// end sends a signal and waits until the agent has ended.
func (a *agent) end(signal syscall.Signal) {
	_ = a.cmd.Process.Signal(signal)
	<-a.done
}

// request sends a request to the API server with the agent's account.
func (r *rig) request(verb, path, body string) (status int, answer string) {
	r.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", r.path("kubeconfig"))
	must(r, err)
	client, err := rest.HTTPClientFor(config)
	must(r, err)
	q, err := http.NewRequest(verb, server.URL()+path, strings.NewReader(body))
	must(r, err)
	q.Header.Set("Content-Type", map[bool]string{true: "application/merge-patch+json",
		false: "application/json"}[verb == "PATCH"])
	response, err := client.Do(q)
	must(r, err)
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	must(r, err)
	return response.StatusCode, string(data)
}

// get sends a request to the agent's HTTP server.
func (r *rig) get(path string) (status int, body string) {
	response, err := http.Get("http://127.0.0.1:15088" + path)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	data, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(data)
}

// metric returns the value of a metric, with its labels as in /metrics; "" if it does not exist.
func (r *rig) metric(name string) string {
	_, body := r.get("/metrics")
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, "istio_pod_network_"+name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// patience limits a wait for something that has to happen. No test passes or fails because of its duration.
const patience = 4 * time.Minute

// must ends the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	await.Must(t, err)
}

// eventually waits until holds returns true.
func (r *rig) eventually(what string, holds func() bool) {
	r.Helper()
	await.Eventually(r, patience, what, holds)
}

// ready waits until the agent is ready.
func (r *rig) ready() {
	r.Helper()
	r.eventually("the agent is ready", func() bool { status, _ := r.get("/readyz"); return status == http.StatusOK })
}

// lastRound returns the times between which the patrol's last round ended. /healthz has whole milliseconds.
func (r *rig) lastRound() (earliest, latest time.Time) {
	r.Helper()
	var age time.Duration
	asked := time.Now()
	r.eventually("the agent says when it has made a round", func() bool {
		asked = time.Now()
		_, body := r.get("/healthz")
		_, text, _ := strings.Cut(body, "last round ")
		text, _, _ = strings.Cut(text, " ago")
		var err error
		age, err = time.ParseDuration(text)
		return err == nil
	})
	return asked.Add(-age - time.Millisecond), time.Now().Add(-age + time.Millisecond)
}

// rounds waits until the patrol has made that many more rounds. What it has not done by then, it does not do.
func (r *rig) rounds(more int) {
	r.Helper()
	_, last := r.lastRound()
	for range more + 1 { // the first one may have begun before
		r.eventually("the patrol makes another round", func() bool {
			earliest, latest := r.lastRound()
			if !earliest.After(last) {
				return false
			}
			last = latest
			return true
		})
	}
}

// outage stops the API server until the returned function is called, at the latest until the test ends.
func (r *rig) outage(begin func(), end func() error) (over func()) {
	over = sync.OnceFunc(func() {
		if err := end(); err != nil { // not Fatal, which must not be called in another goroutine
			r.Error(err)
		}
	})
	r.Cleanup(over)
	begin()
	return over
}

// away is an API server that refuses connections.
func (r *rig) away() (back func()) { return r.outage(server.Down, server.Up) }

// paused is an API server that keeps its connections and does not answer.
func (r *rig) paused() (resumed func()) {
	return r.outage(func() { must(r, server.Pause()) }, server.Resume)
}

// meshAnnotations returns the annotations of Istio's injector.
func meshAnnotations() map[string]string {
	return map[string]string{"sidecar.istio.io/status": "{}"}
}

// podOf returns a pod on the rig's node. With the mesh's annotations it has a sidecar.
func (r *rig) podOf(name string, annotations map[string]string) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: r.namespace, Annotations: maps.Clone(annotations)},
		Spec: corev1.PodSpec{NodeName: r.node, Containers: []corev1.Container{{Name: "app", Image: "app",
			SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: new(false)}}}},
	}
	if _, mesh := annotations["sidecar.istio.io/status"]; mesh {
		id := int64(1337)
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{
			Name: "istio-proxy", Image: "proxy", Args: []string{"proxy", "sidecar"},
			SecurityContext: &corev1.SecurityContext{RunAsUser: &id, RunAsGroup: &id},
		})
	}
	return pod
}

// create creates the pod.
func (r *rig) create(pod *corev1.Pod) *corev1.Pod {
	r.Helper()
	created, err := r.client.CoreV1().Pods(pod.Namespace).Create(r.ctx, pod, metav1.CreateOptions{})
	must(r, err)
	return created
}

// mesh creates a mesh pod.
func (r *rig) mesh(name string) *corev1.Pod {
	r.Helper()
	return r.create(r.podOf(name, meshAnnotations()))
}

// remove deletes the pod without a grace period, as the kubelet does in the end.
func (r *rig) remove(name string) {
	r.Helper()
	now := int64(0)
	must(r, r.client.CoreV1().Pods(r.namespace).Delete(r.ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &now}))
}

// pod reads the pod.
func (r *rig) pod(name string) *corev1.Pod {
	r.Helper()
	pod, err := r.client.CoreV1().Pods(r.namespace).Get(r.ctx, name, metav1.GetOptions{})
	must(r, err)
	return pod
}

// status sets the pod's status, as the kubelet does.
func (r *rig) status(pod *corev1.Pod, status corev1.PodStatus) {
	r.Helper()
	data, err := json.Marshal(map[string]any{"status": status})
	must(r, err)
	_, err = r.client.CoreV1().Pods(pod.Namespace).Patch(r.ctx, pod.Name, types.MergePatchType, data,
		metav1.PatchOptions{}, "status")
	must(r, err)
}

var sandboxes int

// recordOf returns the plugin's record of a new sandbox of the pod.
func recordOf(pod *corev1.Pod) record.Record {
	sandboxes++
	return sandbox.Record(pod, sandboxes)
}

// put writes a record.
func (r *rig) put(rec record.Record) record.Record {
	r.Helper()
	must(r, r.store.Put(rec))
	return rec
}

// mark is a pod's mark.
type mark struct{ status, netns, reason string }

func markOn(pod *corev1.Pod) mark {
	return mark{pod.Annotations[annotation.Status], pod.Annotations[annotation.NetNS], pod.Annotations[annotation.Reason]}
}

// want returns the mark for a record.
func want(rec record.Record) mark {
	if rec.Decision == record.Redirect {
		return mark{annotation.Initialized, string(rec.NetNS), rec.Reason}
	}
	return mark{annotation.NotRequired, string(rec.NetNS), rec.Reason}
}

// marked waits until the pod has the mark of the record.
func (r *rig) marked(name string, rec record.Record) {
	r.Helper()
	r.eventually(fmt.Sprintf("pod %s is marked %v", name, want(rec)),
		func() bool { return markOn(r.pod(name)) == want(rec) })
}

// writes counts the agent's successful patches by pod UID, and those that changed the pod. The audit log has a request
// only a moment after its effect is visible.
func (r *rig) writes() (patches, effective map[string]int) {
	r.Helper()
	requests, err := server.Audit(r.account)
	must(r, err)
	patches, effective = map[string]int{}, map[string]int{}
	seen := map[string]bool{}
	for _, q := range requests {
		if q.Verb != "patch" || q.Object.Resource != "pods" || q.Status.Code != http.StatusOK {
			continue
		}
		uid, version := q.Response.Metadata.UID, q.Response.Metadata.ResourceVersion
		patches[uid]++
		if !seen[uid+version] {
			effective[uid]++
		}
		seen[uid+version] = true
	}
	return patches, effective
}

// wrote waits until that many writes have changed a pod, and no more.
func (r *rig) wrote(pod *corev1.Pod, want int) {
	r.Helper()
	got := 0
	await.Explain(r, "writes to "+pod.Name, func() string { return fmt.Sprint(got) })
	r.eventually(fmt.Sprintf("%s has been written to %d times", pod.Name, want), func() bool {
		_, effective := r.writes()
		got = effective[string(pod.UID)]
		return got == want
	})
}

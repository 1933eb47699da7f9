package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/internal/await"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// rig is what one test has: a namespace in which Pod Security restricted is enforced, and a row of the table.
type rig struct {
	testing.TB
	*scenario
	ctx       context.Context
	namespace string
	node      *cluster.Node           // where its pods go
	person    kubernetes.Interface    // who makes them
	app       *corev1.SecurityContext // that of their apps
	heal      func()                  // ends the faults that are injected, if any
}

var rigs int

// newRig is one on the node with the current runtime.
func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{
		TB: t, scenario: &scenario{name: t.Name()}, ctx: context.Background(), node: nodes.Nodes[0], heal: func() {},
		person: nodes.Client, app: restricted(appUser),
	}
	start := time.Now()
	scenarios = append(scenarios, r.scenario)
	t.Cleanup(func() {
		r.took, r.outcome = time.Since(start), map[bool]string{true: "FAILED", false: "ok"}[t.Failed()]
	})
	r.leavesNothing()
	r.namespace = r.newNamespace(enforcing("restricted"), nil)
	if list := os.Getenv(faultsEnv); list != "" {
		seed := seed()
		t.Logf("under the faults %s of seed %d", list, seed)
		r.heal = r.inject(named(list), seed)
		t.Cleanup(func() { r.heal(); r.healthy() })
	}
	return r
}

// healthy waits until every node is ready, its runtime answers, and so does the agent if there is one.
func (r *rig) healthy() {
	r.Helper()
	for _, n := range nodes.Nodes {
		r.eventually(n.Name+" is ready", func() bool { return n.Ready(r.ctx) })
		must(r, n.RuntimeAnswers())
	}
	if state != nil {
		r.agentsReady()
	}
}

// onEveryNode runs a test on each, in a row of its own.
func onEveryNode(t *testing.T, test func(*rig)) {
	t.Helper()
	for _, n := range nodes.Nodes {
		t.Run(n.Name, func(t *testing.T) {
			r := newRig(t)
			r.node = n
			test(r)
		})
	}
}

const enforce = "pod-security.kubernetes.io/enforce"

// enforcing are the labels of a namespace with that level of Pod Security.
func enforcing(level string) map[string]string {
	return map[string]string{enforce: level}
}

// newNamespace makes a namespace that pods can be made in, as its Pod Security has it; it ends with the test.
func (r *rig) newNamespace(labels, annotations map[string]string) string {
	r.Helper()
	rigs++
	return r.namedNamespace(fmt.Sprint("shop-", rigs), labels, annotations)
}

func (r *rig) namedNamespace(name string, labels, annotations map[string]string) string {
	r.Helper()
	r.succeeds("making the namespace "+name, func() error { // one of that name, of a test before, may still be ending
		_, err := nodes.Client.CoreV1().Namespaces().Create(r.ctx, &corev1.Namespace{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels, Annotations: annotations},
		}, metav1.CreateOptions{})
		return err
	})
	r.Cleanup(func() { // first of all the namespace, so that no controller makes pods again
		must(r, ignoreNotFound(nodes.Client.CoreV1().Namespaces().Delete(r.ctx, name, metav1.DeleteOptions{})))
		r.clear(name)
	})
	await.Explain(r, "namespace "+name, func() string { return describe(name) })
	r.eventually("the namespace has its service account", func() bool {
		_, err := nodes.Client.CoreV1().ServiceAccounts(name).Get(r.ctx, "default", metav1.GetOptions{})
		return err == nil
	})
	if level := labels[enforce]; level != "" {
		pod := r.appPod("try")
		pod.Namespace, pod.Spec.Containers[0].SecurityContext = name, restricted(appUser)
		pod.Spec.Containers[0].SecurityContext.Capabilities.Add = []corev1.Capability{"NET_ADMIN"}
		r.eventually("Pod Security "+level+" is in force", func() bool {
			_, err := nodes.Client.CoreV1().Pods(name).Create(r.ctx, pod, metav1.CreateOptions{DryRun: []string{"All"}})
			refused := err != nil && strings.Contains(err.Error(), "PodSecurity")
			return level == "privileged" && err == nil || level != "privileged" && refused
		})
	}
	return name
}

// label gives a namespace one more label, or another value of it.
func (r *rig) label(namespace, key, value string) error {
	patch := fmt.Sprintf(`{"metadata": {"labels": {%q: %q}}}`, key, value)
	_, err := nodes.Client.CoreV1().Namespaces().Patch(r.ctx, namespace, types.MergePatchType, []byte(patch),
		metav1.PatchOptions{})
	return err
}

// clear deletes the pods of a namespace and waits until they are gone.
func (r *rig) clear(namespace string) {
	r.Helper()
	pods := nodes.Client.CoreV1().Pods(namespace)
	must(r, ignoreNotFound(pods.DeleteCollection(r.ctx, metav1.DeleteOptions{}, metav1.ListOptions{})))
	r.eventually("the pods of "+namespace+" are gone", func() bool {
		left, err := pods.List(r.ctx, metav1.ListOptions{})
		return err == nil && len(left.Items) == 0
	})
}

// authority is by whom the API server's certificate is issued, and those of the webhooks.
func (r *rig) authority() []byte {
	r.Helper()
	data, err := os.ReadFile(nodes.Server.CA())
	must(r, err)
	return data
}

// must ends the test if there is an error.
func must(t testing.TB, err error) {
	t.Helper()
	await.Must(t, err)
}

// note adds something measured to the row of the table.
func (r *rig) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// patience bounds a wait for something that has to happen; no test passes or fails by how long it took. Under faults
// all takes longer.
var patience = map[bool]time.Duration{true: 5 * time.Minute, false: 8 * time.Minute}[os.Getenv(faultsEnv) == ""]

func (r *rig) eventually(what string, holds func() bool) {
	r.Helper()
	await.Eventually(r, patience, what, holds)
}

// succeeds repeats something until it works: the API server may be away.
func (r *rig) succeeds(what string, do func() error) {
	r.Helper()
	await.Success(r, patience, what, do)
}

// until has a fault last until the function that it returns is called, and no longer than the test.
func (r *rig) until(undo func() error) (over func()) {
	over = sync.OnceFunc(func() {
		if err := undo(); err != nil { // and no Fatal: nothing may end a goroutine in there
			r.Error(err)
		}
	})
	r.Cleanup(over)
	return over
}

// describe says of every pod and Event of a namespace what a person would look at.
func describe(namespace string) string {
	var all strings.Builder
	pods, err := nodes.Client.CoreV1().Pods(namespace).List(context.Background(), metav1.ListOptions{})
	if err != nil {
		return err.Error()
	}
	for _, pod := range pods.Items {
		status, _ := json.Marshal(pod.Status)
		fmt.Fprintf(&all, "%s %v\n%s\n", pod.Name, pod.Annotations, status)
		for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
			log, err := nodes.Client.CoreV1().Pods(namespace).GetLogs(pod.Name, &corev1.PodLogOptions{Container: c.Name}).DoRaw(
				context.Background())
			fmt.Fprintf(&all, "log of %s: %v\n%s\n", c.Name, err, log[max(0, len(log)-1000):])
		}
	}
	return all.String() + events(namespace)
}

// events are those of a namespace, one a line.
func events(namespace string) string {
	var all strings.Builder
	list, err := nodes.Client.CoreV1().Events(namespace).List(context.Background(), metav1.ListOptions{})
	if err != nil {
		return err.Error()
	}
	for _, e := range list.Items {
		fmt.Fprintf(&all, "%s %s %s\n", e.InvolvedObject.Name, e.Reason, e.Message)
	}
	return all.String()
}

// output runs a command that has to succeed.
func (r *rig) output(cmd *exec.Cmd) string {
	r.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		r.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

// kubectl is a command of a person with all rights.
func kubectl(args ...string) *exec.Cmd { return asAdmin("kubectl", args...) }

// asAdmin is a command with the credentials of a person with all rights.
func asAdmin(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(lookUp(name), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+nodes.Admin())
	return cmd
}

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

// rig is the fixture of one test: a namespace that enforces Pod Security restricted, and a row of the table.
type rig struct {
	testing.TB
	*scenario
	ctx       context.Context
	namespace string
	node      *cluster.Node           // runs its pods
	person    kubernetes.Interface    // creates them
	app       *corev1.SecurityContext // of their apps
	heal      func()                  // ends injected faults
}

var rigs int

// newRig returns a rig on the node with the current runtime.
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

// healthy waits until every node is ready, its runtime answers, and its agent is ready if the release is installed.
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

// onEveryNode runs a test on each node, as a subtest with its own row.
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

// enforcing returns the labels of a namespace that enforces a level of Pod Security.
func enforcing(level string) map[string]string {
	return map[string]string{enforce: level}
}

// newNamespace creates a namespace, and waits until its Pod Security is in force. It is deleted at the end of the test.
func (r *rig) newNamespace(labels, annotations map[string]string) string {
	r.Helper()
	rigs++
	return r.namedNamespace(fmt.Sprint("shop-", rigs), labels, annotations)
}

func (r *rig) namedNamespace(name string, labels, annotations map[string]string) string {
	r.Helper()
	r.succeeds("making the namespace "+name, func() error { // an earlier one may still be terminating
		_, err := nodes.Client.CoreV1().Namespaces().Create(r.ctx, &corev1.Namespace{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels, Annotations: annotations},
		}, metav1.CreateOptions{})
		return err
	})
	r.Cleanup(func() { // the namespace first, so that no controller creates pods again
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

// label sets a label of a namespace.
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

// authority returns the certificate that has issued the serving certificates of the API server and the webhooks, as
// PEM.
func (r *rig) authority() []byte {
	r.Helper()
	data, err := os.ReadFile(nodes.Server.CA())
	must(r, err)
	return data
}

// must ends the test if err is not nil.
func must(t testing.TB, err error) {
	t.Helper()
	await.Must(t, err)
}

// note adds a measurement to the test's row.
func (r *rig) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// patience is the timeout of every wait. No test depends on how long something takes. With injected faults everything
// takes longer.
var patience = map[bool]time.Duration{true: 5 * time.Minute, false: 8 * time.Minute}[os.Getenv(faultsEnv) == ""]

// waits is the flag that gives Helm, kubectl and the operator's tool the same time.
func waits() string { return fmt.Sprint("--timeout=", patience) }

func (r *rig) eventually(what string, holds func() bool) {
	r.Helper()
	await.Eventually(r, patience, what, holds)
}

// succeeds repeats do until it returns no error, because the API server may be away.
func (r *rig) succeeds(what string, do func() error) {
	r.Helper()
	await.Success(r, patience, what, do)
}

// until returns a function that calls undo once. It is also called at the end of the test.
func (r *rig) until(undo func() error) (over func()) {
	over = sync.OnceFunc(func() {
		if err := undo(); err != nil { // not Fatal, because over may run in a goroutine that must not end
			r.Error(err)
		}
	})
	r.Cleanup(over)
	return over
}

// describe returns the status, logs and Events of a namespace's pods, for a failed test.
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

// events returns the Events of a namespace, one per line: object, reason and message.
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

// output runs a command and returns its standard output. The test ends if the command fails.
func (r *rig) output(cmd *exec.Cmd) string {
	r.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		r.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

// kubectl returns a command that runs kubectl with all rights.
func kubectl(args ...string) *exec.Cmd { return asAdmin("kubectl", args...) }

// asAdmin returns a command with the credentials of the cluster's administrator.
func asAdmin(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(lookUp(name), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+nodes.Admin())
	return cmd
}

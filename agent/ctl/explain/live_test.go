package explain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/internal/golden"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/redirect"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// fake is a cluster in memory with one pod.
type fake struct {
	pod       *corev1.Pod
	namespace corev1.Namespace
	agent     *corev1.Pod
	sets      []appsv1.DaemonSet
	config    string
	events    []corev1.Event
	webhooks  []admissionv1.MutatingWebhookConfiguration
	injector  string // the settings of Istio's default revision
	log       string // of the init wait
	told      inspect.Pod
	errs      map[string]error // by what is read
}

func (f *fake) Pod(_ context.Context, namespace, name string) (*corev1.Pod, error) {
	if f.pod.Namespace != namespace || f.pod.Name != name {
		return nil, errors.New(`pods "` + name + `" not found`)
	}
	return f.pod, f.errs["pod"]
}

func (f *fake) NamespaceNamed(context.Context, string) (*corev1.Namespace, error) {
	return &f.namespace, f.errs["namespace"]
}

func (f *fake) AgentOn(context.Context, string, string) (*corev1.Pod, error) {
	if err := f.errs["agents"]; err != nil {
		return nil, err
	}
	return f.agent, nil
}

func (f *fake) DaemonSets(context.Context, string) ([]appsv1.DaemonSet, error) {
	return f.sets, f.errs["daemonsets"]
}

func (f *fake) ConfigMap(_ context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	if namespace == "istio-system" && name == "istio-sidecar-injector" {
		return &corev1.ConfigMap{Data: map[string]string{"config": f.injector}}, f.errs["injector"]
	}
	if namespace != "mesh-network" || name != "istio-pod-network-config" {
		return nil, errors.New("not found: " + namespace + "/" + name)
	}
	return &corev1.ConfigMap{Data: map[string]string{"network.json": f.config}}, f.errs["configmap"]
}

func (f *fake) EventsOf(context.Context, *corev1.Pod) ([]corev1.Event, error) {
	return f.events, f.errs["events"]
}

func (f *fake) MutatingWebhooks(context.Context) ([]admissionv1.MutatingWebhookConfiguration, error) {
	return f.webhooks, f.errs["webhooks"]
}

func (f *fake) Log(_ context.Context, _ *corev1.Pod, container string, lines int64, limit int) ([]byte, bool, error) {
	if container != "istio-validation" || lines < 1 || limit < 1 {
		return nil, false, fmt.Errorf("a log of %s, %d lines, %d bytes", container, lines, limit)
	}
	return []byte(f.log), false, f.errs["log"]
}

func (f *fake) AskPod(context.Context, corev1.Pod, string, string) (inspect.Pod, error) {
	return f.told, f.errs["exec"]
}

// noon is the time of all looks at the cluster.
var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

const (
	thisNetwork  = "5e7c1c9d-3b0a-4a52-9a0e-0d6a3f1d2b11/4026532290/8193"
	otherNetwork = "5e7c1c9d-3b0a-4a52-9a0e-0d6a3f1d2b11/4026532101/8001"
)

// injected returns a cluster with a mesh pod that is well.
func injected() *fake {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "cart-0", UID: "u", Annotations: map[string]string{
			annotation.SidecarStatus: "{}", annotation.Status: annotation.Initialized, annotation.NetNS: thisNetwork,
			annotation.Reason: "injected",
		}}}
	restricted := &corev1.SecurityContext{AllowPrivilegeEscalation: new(bool)}
	pod.Spec.NodeName = "node-a"
	pod.Spec.InitContainers = []corev1.Container{{Name: "istio-validation"}}
	pod.Spec.Containers = []corev1.Container{{Name: "app", SecurityContext: restricted}, {Name: redirect.ProxyContainer,
		SecurityContext: restricted}}
	pod.Status.Phase, pod.Status.PodIPs = corev1.PodRunning, []corev1.PodIP{{IP: "10.0.0.7"}}
	pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "istio-validation", State: corev1.ContainerState{
		Terminated: &corev1.ContainerStateTerminated{FinishedAt: at(-5 * time.Minute)}}}}
	f := &fake{pod: pod, config: `{"type": "istio-pod-network", "redirect": {"outboundPort": 15101}}`,
		errs: map[string]error{}}
	f.namespace.Labels = map[string]string{"kubernetes.io/metadata.name": "shop"}
	f.agent = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "mesh-network", Name: "agent-a"}}
	spec := redirect.DefaultSpec()
	spec.OutboundPort = 15101
	f.told = inspect.Pod{UID: "u", Rules: inspect.Rules{Looked: true, OK: true}, Record: &inspect.Record{
		NetNS: thisNetwork, Decision: "redirect", Reason: "injected", Backend: "nftables",
		RuleSetHash: spec.RuleSet().Hash(), Time: noon.Add(-6 * time.Minute)}}
	return f
}

func at(since time.Duration) metav1.Time { return metav1.NewTime(noon.Add(since)) }

// plain returns a cluster with a pod outside the mesh, and Istio's injector in two revisions.
func plain() *fake {
	f := injected()
	f.log = ""
	f.pod.Annotations, f.pod.Spec.InitContainers, f.pod.Status.InitContainerStatuses = nil, nil, nil
	f.pod.Spec.Containers = f.pod.Spec.Containers[:1]
	f.told = inspect.Pod{UID: "u", Rules: inspect.Rules{Detail: "there is no record"}}
	pods := []admissionv1.RuleWithOperations{{Operations: []admissionv1.OperationType{"CREATE"},
		Rule: admissionv1.Rule{APIGroups: []string{""}, Resources: []string{"pods"}}}}
	asks := func(key string, values ...string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
			{Key: key, Operator: metav1.LabelSelectorOpIn, Values: values}}}
	}
	hook := func(revision string, hooks ...admissionv1.MutatingWebhook) admissionv1.MutatingWebhookConfiguration {
		return admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{
			Name: "istio-sidecar-injector-" + revision, Labels: map[string]string{"istio.io/rev": revision}}, Webhooks: hooks}
	}
	istiod := admissionv1.WebhookClientConfig{Service: &admissionv1.ServiceReference{Namespace: "istio-system"}}
	f.injector = "policy: enabled\nneverInjectSelector: []\n"
	f.webhooks = []admissionv1.MutatingWebhookConfiguration{
		hook("canary", admissionv1.MutatingWebhook{Name: "rev.namespace.sidecar-injector.istio.io", Rules: pods,
			NamespaceSelector: asks("istio.io/rev", "canary")}),
		hook("default", admissionv1.MutatingWebhook{Name: "namespace.sidecar-injector.istio.io", Rules: pods,
			ClientConfig: istiod, NamespaceSelector: asks("istio-injection", "enabled")},
			admissionv1.MutatingWebhook{Name: "object.sidecar-injector.istio.io", Rules: pods,
				ObjectSelector: asks("sidecar.istio.io/inject", "true")}),
		hook("other", admissionv1.MutatingWebhook{Name: "validation.istio.io", Rules: pods}),
	}
	return f
}

// looked explains the pod, and returns the output and the exit status.
func looked(t *testing.T, f *fake, format output.Format, pods ...string) (string, int, error) {
	t.Helper()
	var out bytes.Buffer
	a := asker{from: f, now: noon}
	err := a.look(t.Context(), pods, output.NoPicture, output.Writer{Out: &out, Format: format})
	return out.String(), outcome.StatusOf(err), err
}

// situations are clusters with faults, by name.
type situations map[string]struct {
	make   func() *fake
	change func(*fake)
	status int
}

// show compares the output in each situation with a golden file, and checks the exit status.
func (s situations) show(t *testing.T) {
	for name, test := range s {
		t.Run(name, func(t *testing.T) {
			for format, file := range map[output.Format]string{output.Table: ".txt", output.JSON: ".json",
				output.YAML: ".yaml"} {
				asJSON := slices.Contains([]string{"plain", "never", "waits-long"}, name) && format == output.JSON
				asYAML := name == "waits-long" && format == output.YAML
				if format != output.Table && name != "bypass" && !asJSON && !asYAML {
					continue
				}
				f := test.make()
				test.change(f)
				got, status, err := looked(t, f, format, "shop/cart-0")
				if status != test.status {
					t.Errorf("%s: status %d, want %d: %v", format, status, test.status, err)
				}
				golden.Compare(t, filepath.Join("testdata", "live", name+file), got)
				if format == output.Table {
					golden.Fits(t, name, got, output.Width)
				}
			}
		})
	}
}

// forbidden returns the API server's error for a missing right.
func forbidden(what string) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: what}, "", errors.New(`User "reader" cannot`))
}

// errAway is the error of requests while the API server is away.
var errAway = errors.New("connect: connection refused")

func event(reason, kind, message string, since time.Duration) corev1.Event {
	return corev1.Event{Reason: reason, Type: kind, Message: message, LastTimestamp: at(since), Count: 3,
		Source: corev1.EventSource{Component: "kubelet"}}
}

// givenUp is the status of an init wait that fails again and again.
func givenUp(message string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: "istio-validation", RestartCount: 2,
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
		LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1,
			FinishedAt: at(-time.Minute), Message: message}}}
}

const gaveUp = "gave up after 5m0s: annotation pod-network-controller.istio.io/status is absent\n"

// Output about a pod of a cluster in each situation, with the exit status.
func TestLive(t *testing.T) {
	situations{
		"well": {injected, func(*fake) {}, outcome.Well},
		"drift": {injected, func(f *fake) {
			f.told.Rules = inspect.Rules{Looked: true, Detail: "istio-pod-network: checking the packet rules: table ip " +
				"istio-pod-network: chain nat-istio-output: rule 3 is missing"}
		}, outcome.NotWell},
		"not-looked-at": {injected, func(f *fake) {
			f.told.Rules = inspect.Rules{Detail: "the agent has no rights in pods' network namespaces (--repair=off)",
				Change: "repair: apply"}
		}, outcome.Well},
		"other-network": {injected, func(f *fake) { f.pod.Annotations[annotation.NetNS] = otherNetwork }, outcome.NotWell},
		"unmarked": {injected, func(f *fake) {
			delete(f.pod.Annotations, annotation.Status)
			delete(f.pod.Annotations, annotation.NetNS)
		}, outcome.NotWell},
		"other-status": {injected, func(f *fake) { f.pod.Annotations[annotation.Status] = annotation.NotRequired },
			outcome.NotWell},
		"bypass": {injected, func(f *fake) {
			f.pod.Annotations = map[string]string{annotation.SidecarStatus: "{}"}
			f.told = inspect.Pod{UID: "u", Bypassed: true, WaitsLong: true, Rules: f.told.Rules}
			f.pod.Status.InitContainerStatuses[0].State = corev1.ContainerState{
				Running: &corev1.ContainerStateRunning{StartedAt: at(-4 * time.Minute)}}
			f.events = []corev1.Event{
				event("MeshBypassed", "Warning", "The container runtime did not run the plugin for this mesh pod, although it "+
					"was chained when the pod's network was made: the pod has no packet rules.", -3*time.Minute),
				event("Scheduled", "Normal", "Successfully assigned shop/cart-0 to node-a", -5*time.Minute)}
		}, outcome.NotWell},
		"gave-up": {injected, func(f *fake) { f.pod.Status.InitContainerStatuses[0] = givenUp(gaveUp) }, outcome.NotWell},
		"before": {injected, func(f *fake) {
			f.told.Record.Decision, f.told.Record.Reason, f.told.Rules = "untouched", "mode-none", inspect.Rules{}
			f.pod.Annotations[annotation.Status] = annotation.NotRequired
		}, outcome.NotWell},
		"older":   {injected, func(f *fake) { f.told.Older = true }, outcome.Well},
		"changed": {injected, func(f *fake) { f.pod.Annotations[annotation.EnvoyPort] = "15301" }, outcome.Well},
		"pending": {injected, func(f *fake) {
			f.pod.Spec.NodeName, f.pod.Status = "", corev1.PodStatus{Phase: corev1.PodPending}
			f.pod.Annotations = map[string]string{annotation.SidecarStatus: "{}"}
			f.sets = []appsv1.DaemonSet{{ObjectMeta: metav1.ObjectMeta{Namespace: "mesh-network"}}}
		}, outcome.NotAsked},
		"refused": {injected, func(f *fake) {
			f.pod.Annotations = map[string]string{annotation.SidecarStatus: "{}", annotation.EnvoyPort: "many"}
			f.pod.Status, f.told = corev1.PodStatus{Phase: corev1.PodPending}, inspect.Pod{UID: "u"}
			f.events = []corev1.Event{event("FailedCreatePodSandBox", "Warning", `Failed to create pod sandbox: plugin `+
				`type="istio-pod-network" failed (add): istio-pod-network: deciding about pod shop/cart-0: annotation `+
				`pod-network-controller.istio.io/envoy-port: invalid value "many"; valid: a port`, -time.Minute)}
		}, outcome.NotWell},
		"over":  {injected, func(f *fake) { f.pod.Status.Phase, f.told = corev1.PodSucceeded, inspect.Pod{} }, outcome.Well},
		"plain": {plain, func(*fake) {}, outcome.Well},
		"pasted": {plain, func(f *fake) {
			f.pod.Annotations = injected().pod.Annotations
			delete(f.pod.Annotations, annotation.SidecarStatus)
		}, outcome.NotWell},
		"host-network": {plain, func(f *fake) { f.pod.Spec.HostNetwork = true }, outcome.Well},
	}.show(t)
}

// A pod that cannot be read is named, and the others are still explained.
func TestUnread(t *testing.T) {
	out, status, err := looked(t, injected(), output.Table, "shop/none", "shop/cart-0")
	if status != outcome.NotAsked || !strings.Contains(out, "redirected (injected)") ||
		!strings.Contains(out, "Not looked at: reading pod shop/none") || !strings.Contains(err.Error(), `"none" not found`) {
		t.Errorf("%d, %v: %s", status, err, out)
	}
	if out, status, err = looked(t, injected(), output.Table, "shop/none"); status != outcome.NotAsked || out != "" ||
		err == nil {
		t.Errorf("%d, %v: %s", status, err, out)
	}
}

// --config overrides the ConfigMap, and an error in it is misuse.
func TestLiveConfig(t *testing.T) {
	entry := filepath.Join(t.TempDir(), "entry")
	const text = `{"type": "istio-pod-network", "excludeNamespaces": ["shop"]}`
	if err := os.WriteFile(entry, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]int{entry: outcome.Well, "/no": outcome.Misused} {
		settings, err := Input{Config: file}.Settings()
		a := asker{from: injected(), now: noon}
		a.take(settings)
		var out bytes.Buffer
		if err == nil {
			err = a.look(t.Context(), []string{"shop/cart-0"}, output.NoPicture, output.Writer{Out: &out})
		}
		if outcome.StatusOf(err) != want || want == outcome.Well && !strings.Contains(out.String(), "namespace-excluded") {
			t.Errorf("%s: %v: %s", file, err, out.String())
		}
	}
}

func TestNames(t *testing.T) {
	got, err := namesOf([]string{"cart-0", "bank/ledger", "shop/cart-0"}, "shop")
	if want := []string{"shop/cart-0", "bank/ledger"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	for _, name := range []string{"", "/x", "x/", "a/b/c"} {
		if _, err := namesOf([]string{name}, "shop"); outcome.StatusOf(err) != outcome.Misused ||
			!strings.Contains(err.Error(), "valid: NAME, or NAMESPACE/NAME") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

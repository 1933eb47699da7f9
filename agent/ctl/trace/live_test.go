package trace

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/agent/ctl/explain"
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

// fake is a cluster in memory, with the pod shop/cart-0 and an agent. It only answers what the decision about the pod
// needs.
type fake struct {
	config string
	errs   map[string]error // by what is read
}

// forbidden returns the API server's error for a missing right.
func forbidden(what string) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: what}, "", errors.New(`User "reader" cannot`))
}

// errAway is the error of requests while the API server is away.
var errAway = errors.New("connect: connection refused")

func (f *fake) Pod(_ context.Context, namespace, name string) (*corev1.Pod, error) {
	if namespace != "shop" || name != "cart-0" {
		return nil, errors.New(`pods "` + name + `" not found`)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart-0",
		Annotations: map[string]string{annotation.SidecarStatus: "{}"}}}
	pod.Spec.NodeName = "node-a"
	user := int64(1000)
	pod.Spec.Containers = []corev1.Container{
		{Name: "app", SecurityContext: &corev1.SecurityContext{RunAsUser: &user, RunAsGroup: &user}},
		{Name: redirect.ProxyContainer}}
	pod.Status.PodIPs = []corev1.PodIP{{IP: "10.244.0.7"}}
	return pod, nil
}

func (f *fake) NamespaceNamed(context.Context, string) (*corev1.Namespace, error) {
	return &corev1.Namespace{}, f.errs["namespaces"]
}

func (f *fake) AgentOn(context.Context, string, string) (*corev1.Pod, error) {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "mesh-network", Name: "agent-a"}}, nil
}

func (f *fake) DaemonSets(context.Context, string) ([]appsv1.DaemonSet, error) { return nil, nil }

func (f *fake) ConfigMap(context.Context, string, string) (*corev1.ConfigMap, error) {
	return &corev1.ConfigMap{Data: map[string]string{"network.json": f.config}}, f.errs["configmaps"]
}

func (f *fake) EventsOf(context.Context, *corev1.Pod) ([]corev1.Event, error) {
	panic("Events decide nothing")
}

func (f *fake) MutatingWebhooks(context.Context) ([]admissionv1.MutatingWebhookConfiguration, error) {
	panic("webhooks decide nothing")
}

func (f *fake) Log(context.Context, *corev1.Pod, string, int64, int) ([]byte, bool, error) {
	panic("logs decide nothing")
}

func (f *fake) AskPod(context.Context, corev1.Pod, string, string) (inspect.Pod, error) {
	panic("the agent decides nothing")
}

// A packet of a pod in the cluster is traced with the pod, its namespace and the operator's settings.
func TestLive(t *testing.T) {
	const settings = `{"type": "istio-pod-network", "redirect": {"outboundPort": 15101}}`
	for name, test := range map[string]struct {
		f      *fake
		pods   []string
		status int
	}{
		"live.txt": {&fake{config: settings}, []string{"shop/cart-0"}, outcome.Well},
		"live-few-rights.txt": {&fake{errs: map[string]error{"namespaces": forbidden("namespaces"),
			"configmaps": forbidden("configmaps")}}, []string{"shop/cart-0"}, outcome.Well},
		"live-away.txt": {&fake{errs: map[string]error{"namespaces": errAway, "configmaps": errAway}},
			[]string{"shop/cart-0"}, outcome.Well},
		"live-one-missing.txt": {&fake{config: settings}, []string{"shop/cart-0", "shop/none"}, outcome.NotAsked},
		"":                     {&fake{config: settings}, []string{"shop/none"}, outcome.NotAsked},
	} {
		o := options{from: fromApp, to: "10.96.0.10:80", proto: "tcp", backend: backends[0], output: "table"}
		var out bytes.Buffer
		question, err := o.question()
		if err != nil {
			t.Fatal(err)
		}
		err = question.ask(t.Context(), test.f, "", explain.Settings{}, test.pods, output.Writer{Out: &out})
		if outcome.StatusOf(err) != test.status {
			t.Errorf("%s: %v", name, err)
		}
		if name == "" {
			if out.Len() > 0 || !strings.Contains(err.Error(), `"none" not found`) {
				t.Errorf("%v: %s", err, out.String())
			}
			continue
		}
		golden.Compare(t, filepath.Join("testdata", name), out.String())
		golden.Fits(t, name, out.String(), output.Width)
	}
}

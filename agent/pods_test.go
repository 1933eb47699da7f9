package agent

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/plugin/facts"
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"
)

// everything is a pod in which every field that is looked at is set, beside others.
func everything() *corev1.Pod {
	pod := meshPod("cart")
	user, group, privileged, always := int64(1000), int64(2000), true, corev1.ContainerRestartPolicyAlways
	now := metav1.Now()
	pod.Labels = map[string]string{redirect.KeyInject: "true"}
	pod.Annotations[keyLastApplied] = strings.Repeat("x", 10000)
	pod.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "m"}}
	pod.Spec.Volumes = []corev1.Volume{{Name: "v"}}
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &user, RunAsGroup: &group, FSGroup: &group}
	pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "PASSWORD", Value: "secret"}}
	pod.Spec.Containers[0].Args = []string{"--password=secret"}
	pod.Spec.Containers[1].Args = []string{"proxy", "sidecar"}
	pod.Spec.Containers[1].Env = []corev1.EnvVar{
		{Name: redirect.EnvDNSCapture, Value: "true"}, {Name: redirect.EnvInvalidDrop, Value: "ignored", ValueFrom: &corev1.EnvVarSource{}},
	}
	pod.Spec.Containers[1].SecurityContext = &corev1.SecurityContext{RunAsUser: &group, RunAsGroup: &user}
	pod.Spec.InitContainers = []corev1.Container{
		{Name: redirect.InitContainer, SecurityContext: &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"CAP_NET_ADMIN"}}}},
		{Name: "privileged", SecurityContext: &corev1.SecurityContext{Privileged: &privileged}},
		{Name: "all", SecurityContext: &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"all"}}}},
		{Name: "wait", Command: []string{"/" + waitProgram}, SecurityContext: &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}},
		{Name: "logs", RestartPolicy: &always},
	}
	pod.OwnerReferences = []metav1.OwnerReference{{Kind: "Shop", Name: "secret"}, {Kind: "ReplicaSet", Name: "cart", Controller: &privileged}}
	pod.Status = corev1.PodStatus{
		Phase: corev1.PodPending, StartTime: &now, PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled}, {Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionTrue, Message: "m"}},
		InitContainerStatuses: []corev1.ContainerStatus{
			{Name: "done", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}},
			{Name: "wait", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}},
			{Name: "logs", User: &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: 5, GID: 6}}},
		},
		ContainerStatuses: []corev1.ContainerStatus{
			{Name: "app", User: &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: 7, GID: 8, SupplementalGroups: []int64{9}}}},
		},
	}
	return pod
}

// Trimming loses nothing that the facts, the warnings and the search for a bypass look at.
func TestTrim(t *testing.T) {
	whole := everything()
	object, err := trim(everything())
	if err != nil {
		t.Fatal(err)
	}
	small := object.(*corev1.Pod)
	delete(whole.Annotations, keyLastApplied)
	if got, want := factsOf(small, nil), factsOf(whole, nil); !reflect.DeepEqual(got, want) {
		t.Errorf("facts of the trimmed pod: %+v, want %+v", got, want)
	}
	if got, want := asRun(factsOf(small, nil), small.Status), asRun(factsOf(whole, nil), whole.Status); !reflect.DeepEqual(got, want) || *got.Containers[0].RunAsUser != 7 {
		t.Errorf("users in the trimmed pod: %+v, want %+v", got, want)
	}
	since := whole.Status.StartTime.Add(-time.Minute)
	if !hasNetworkSince(small, since) || !hasNetworkSince(whole, since) {
		t.Error("the trimmed pod has no network")
	}
	name, running := waiting(small)
	if name != "wait" || running == nil {
		t.Errorf("waiting is %q %v", name, running)
	}
	if name := held(small); name != "wait" {
		t.Errorf("the trimmed pod is held by %q", name)
	}
	let := everything()
	let.Status.InitContainerStatuses[1].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Message: "m"}}
	if object, _ := trim(let); held(object.(*corev1.Pod)) != "" {
		t.Error("the trimmed pod is still held")
	}
	if owner := metav1.GetControllerOf(small); owner == nil || len(small.OwnerReferences) != 1 {
		t.Errorf("the trimmed pod's owners are %v", small.OwnerReferences)
	}
	data, err := json.Marshal(small)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"secret", "managedFields", "volumes", "last-applied", "PodScheduled", "done"} {
		if strings.Contains(string(data), word) {
			t.Errorf("the trimmed pod still has %q: %s", word, data)
		}
	}
}

func TestFacts(t *testing.T) {
	pod := everything()
	delete(pod.Annotations, keyLastApplied)
	got, err := json.Marshal(factsOf(pod, map[string]string{redirect.KeyInitialize: "true"}))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"namespace":"shop","name":"cart","uid":"uid-of-cart","annotations":{"sidecar.istio.io/status":"{}"},"complete":true,` +
		`"labels":{"sidecar.istio.io/inject":"true"},"namespaceAnnotations":{"istio-pod-network-controller/initialize":"true"},` +
		`"runAsUser":1000,"runAsGroup":2000,"containers":[{"name":"app"},{"name":"istio-proxy","args":["proxy","sidecar"],` +
		`"env":{"ISTIO_META_DNS_CAPTURE":"true"},"runAsUser":2000,"runAsGroup":1000}],` +
		`"initContainers":[{"name":"istio-init","netAdmin":true},{"name":"privileged","netAdmin":true},{"name":"all","netAdmin":true},{"name":"wait"},` +
		`{"name":"logs","restartable":true}]}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	bare := factsOf(&corev1.Pod{}, nil)
	if bare.Annotations == nil || !bare.Complete {
		t.Errorf("a pod without annotations is known to have none: %+v", bare)
	}
}

// answering is an answerer whose API server is a function.
func answering(t *testing.T, read func(ctx context.Context, namespace, name string) (*corev1.Pod, error), pods ...*corev1.Pod) *answerer {
	c, _ := cached(t, func(string) {}, pods...)
	return &answerer{
		node: "node", pods: c, read: read, slots: make(chan struct{}, 1), answered: func(string) {},
		namespaces: &namespaceCache{informer: cache.NewSharedIndexInformer(&cache.ListWatch{}, &metav1.PartialObjectMetadata{}, 0, nil),
			read: func(context.Context, string) (map[string]string, error) {
				return map[string]string{redirect.KeyInitialize: "true", "other": "x"}, nil
			}},
	}
}

func TestAnswer(t *testing.T) {
	static := meshPod("static")
	static.Annotations[keyConfigHash] = "hash"
	elsewhere := meshPod("elsewhere")
	elsewhere.Spec.NodeName = "another"
	live := map[string]*corev1.Pod{"live": meshPod("live"), "elsewhere": elsewhere, "again": meshPod("again")}
	reads := 0
	a := answering(t, func(_ context.Context, _, name string) (*corev1.Pod, error) {
		if reads++; name == "flaky" && reads%3 != 0 {
			return nil, apierrors.NewServiceUnavailable("a moment")
		}
		if name == "flaky" {
			return meshPod("flaky"), nil
		}
		if pod := live[name]; pod != nil {
			return pod, nil
		}
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, name)
	}, meshPod("known"), static, meshPod("again"))
	for _, c := range []struct{ name, uid, words string }{
		{"known", "uid-of-known", ""}, {"known", "", ""}, {"static", "hash", ""}, {"live", "uid-of-live", ""}, {"flaky", "uid-of-flaky", ""},
		{"gone", "uid", `"gone" not found`}, {"again", "uid-of-another", "is gone"}, {"elsewhere", "", `on node "another", and this is the agent of node "node"`},
	} {
		reads = 0
		r := a.answer(t.Context(), facts.Request{Namespace: "shop", Name: c.name, UID: c.uid})
		switch {
		case c.words == "" && (r.Pod == nil || r.Pod.Name != c.name || r.Pod.NamespaceAnnotations[redirect.KeyInitialize] != "true" || len(r.Pod.NamespaceAnnotations) != 1):
			t.Errorf("%s: %+v %v", c.name, r.Pod, r.Error)
		case c.words != "" && (r.Error == nil || r.Error.Code != codeTryLater || !strings.Contains(r.Error.Message, c.words)):
			t.Errorf("%s: %+v %v, want %q", c.name, r.Pod, r.Error, c.words)
		}
		if c.name == "known" && reads > 0 {
			t.Error("a pod that is in the cache is read from the API server")
		}
	}
}

// While the API server hangs or fails, the watch may bring the pod; and a question that ends is answered by an error that
// says what the matter was.
func TestAnswerMeanwhile(t *testing.T) {
	hang := func(ctx context.Context, _, _ string) (*corev1.Pod, error) { <-ctx.Done(); return nil, ctx.Err() }
	a := answering(t, hang)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if r := a.answer(ctx, facts.Request{Namespace: "shop", Name: "cart"}); r.Error == nil || !strings.Contains(r.Error.Message, "deadline exceeded") {
		t.Errorf("%+v", r)
	}
	refuse := func(context.Context, string, string) (*corev1.Pod, error) {
		return nil, errors.New("connection refused")
	}
	c, from := cached(t, func(string) {})
	a = answering(t, refuse)
	a.pods = c
	time.AfterFunc(300*time.Millisecond, func() { from.Add(meshPod("cart")) })
	if r := a.answer(t.Context(), facts.Request{Namespace: "shop", Name: "cart"}); r.Pod == nil {
		t.Errorf("%+v", r.Error)
	}
	a = answering(t, refuse)
	ctx, cancel = context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if r := a.answer(ctx, facts.Request{Namespace: "shop", Name: "cart"}); r.Error == nil || !strings.Contains(r.Error.Message, "connection refused") {
		t.Errorf("%+v", r)
	}
}

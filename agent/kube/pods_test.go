package kube

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/podfacts"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// meshPod returns a pod with a sidecar from Istio's injector.
func meshPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "cart", UID: "uid-of-cart",
			Annotations: map[string]string{annotation.SidecarStatus: "{}"}},
		Spec: corev1.PodSpec{NodeName: "node", Containers: []corev1.Container{{Name: "app"},
			{Name: redirect.ProxyContainer}}},
	}
}

// everything returns a pod in which every field that the agent uses is set, and some others.
func everything() *corev1.Pod {
	pod := meshPod()
	user, group, privileged, always := int64(1000), int64(2000), true, corev1.ContainerRestartPolicyAlways
	now := metav1.Now()
	pod.Labels = map[string]string{annotation.SidecarInject: "true"}
	pod.Annotations["kubectl.kubernetes.io/last-applied-configuration"] = strings.Repeat("x", 10000)
	pod.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "m"}}
	pod.Spec.Volumes = []corev1.Volume{{Name: "v"}}
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &user, RunAsGroup: &group, FSGroup: &group,
		SupplementalGroups: []int64{3000}}
	pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "PASSWORD", Value: "secret"}}
	pod.Spec.Containers[0].Args = []string{"--password=secret"}
	pod.Spec.Containers[1].Args = []string{"proxy", "sidecar"}
	pod.Spec.Containers[1].Env = []corev1.EnvVar{
		{Name: redirect.EnvDNSCapture, Value: "true"}, {Name: redirect.EnvInvalidDrop, Value: "ignored",
			ValueFrom: &corev1.EnvVarSource{}},
	}
	pod.Spec.Containers[1].SecurityContext = &corev1.SecurityContext{RunAsUser: &group, RunAsGroup: &user}
	pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "restricted",
		SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: new(false)}})
	pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
		Name: "debugger", Command: []string{"sh"}, SecurityContext: &corev1.SecurityContext{RunAsUser: &user}}}}
	pod.Spec.InitContainers = []corev1.Container{
		{Name: redirect.InitContainer,
			SecurityContext: &corev1.SecurityContext{
				Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"CAP_NET_ADMIN"}}}},
		{Name: "privileged", SecurityContext: &corev1.SecurityContext{Privileged: &privileged}},
		{Name: "all", SecurityContext: &corev1.SecurityContext{
			Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"all"}}}},
		{Name: "wait", Command: []string{"/" + podfacts.WaitProgram},
			SecurityContext: &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}},
		{Name: "logs", RestartPolicy: &always},
	}
	pod.OwnerReferences = []metav1.OwnerReference{{Kind: "Shop", Name: "secret"},
		{Kind: "ReplicaSet", Name: "cart", Controller: &privileged}}
	pod.Status = corev1.PodStatus{
		Phase: corev1.PodPending, StartTime: &now, PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled},
			{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionTrue, Message: "m"}},
		InitContainerStatuses: []corev1.ContainerStatus{
			{Name: "done", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}},
			{Name: "wait", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}},
			{Name: "logs", User: &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: 5, GID: 6}}},
		},
		ContainerStatuses: []corev1.ContainerStatus{
			{Name: "app", User: &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: 7, GID: 8,
				SupplementalGroups: []int64{9}}}},
		},
		EphemeralContainerStatuses: []corev1.ContainerStatus{
			{Name: "debugger", User: &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: 10, GID: 11}}},
		},
	}
	return pod
}

// A variable whose value is not in the pod's object is reported by its name, for the whole and the trimmed pod. If two
// have the same name, the later one counts, as for the kubelet.
func TestUnresolved(t *testing.T) {
	literal := func(name, value string) corev1.EnvVar { return corev1.EnvVar{Name: name, Value: value} }
	elsewhere := func(name string) corev1.EnvVar {
		return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{}}}
	}
	const dual = redirect.EnvDualStack
	for name, c := range map[string]struct {
		env        []corev1.EnvVar
		from       []corev1.EnvFromSource
		value      string
		unresolved bool
	}{
		"nothing":                    {nil, nil, "", false},
		"a value":                    {[]corev1.EnvVar{literal(dual, "true")}, nil, "true", false},
		"elsewhere":                  {[]corev1.EnvVar{elsewhere(dual)}, nil, "", true},
		"then elsewhere":             {[]corev1.EnvVar{literal(dual, "true"), elsewhere(dual)}, nil, "", true},
		"then a value":               {[]corev1.EnvVar{elsewhere(dual), literal(dual, "true")}, nil, "true", false},
		"perhaps elsewhere":          {nil, []corev1.EnvFromSource{{}}, "", true},
		"a value, else elsewhere":    {[]corev1.EnvVar{literal(dual, "true")}, []corev1.EnvFromSource{{}}, "true", false},
		"another, perhaps elsewhere": {[]corev1.EnvVar{elsewhere("OTHER")}, nil, "", false},
	} {
		pod := meshPod()
		pod.Spec.Containers[1].Env, pod.Spec.Containers[1].EnvFrom = c.env, c.from
		for what, pod := range map[string]*corev1.Pod{"whole": pod, "trimmed": trim(pod), "twice": trim(trim(pod))} {
			got := podfacts.Of(pod, nil).Containers[1]
			if got.Env[dual] != c.value || slices.Contains(got.Unresolved, dual) != c.unresolved ||
				slices.Contains(got.Unresolved, "OTHER") {
				t.Errorf("%s, %s: %q, unresolved %q", name, what, got.Env, got.Unresolved)
			}
			if isDual, known := podfacts.Of(pod, nil).DualStack(); isDual != (c.value == "true") || known == c.unresolved {
				t.Errorf("%s, %s: listens in both: %t, known: %t", name, what, isDual, known)
			}
		}
	}
}

// A wait is long if it has run longer than the duration, or if it has failed before: a new attempt continues the wait.
func TestWaitsLong(t *testing.T) {
	now := time.Now()
	running := func(age time.Duration) corev1.ContainerState {
		return corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(now.Add(-age))}}
	}
	ended := func(code int32) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}
	}
	again := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
	for name, c := range map[string]struct {
		state    corev1.ContainerState
		restarts int32
		change   func(*corev1.Pod)
		want     bool
	}{
		"not started yet":      {corev1.ContainerState{}, 0, nil, false},
		"for a moment":         {running(time.Second), 0, nil, false},
		"for as long":          {running(time.Minute), 0, nil, false},
		"for longer":           {running(time.Minute + time.Second), 0, nil, true},
		"it has ended":         {ended(0), 0, nil, false},
		"it has given up":      {ended(126), 0, nil, true},
		"it is to start again": {again, 3, nil, true},
		"it tries again":       {running(time.Second), 1, nil, true},
		"it has ended at last": {ended(0), 2, nil, false},
		"the pod is over":      {ended(126), 0, func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, false},
		"no wait":              {running(time.Hour), 0, func(p *corev1.Pod) { p.Spec.InitContainers = nil }, false},
	} {
		pod := meshPod()
		pod.Spec.InitContainers = []corev1.Container{{Name: "istio-validation"}}
		pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "istio-validation", State: c.state,
			RestartCount: c.restarts}}
		if c.change != nil {
			c.change(pod)
		}
		for kind, p := range map[string]*corev1.Pod{"whole": pod, "trimmed": trim(pod)} {
			if got := WaitsLong(p, now, time.Minute); got != c.want {
				t.Errorf("%s, the %s pod: %t", name, kind, got)
			}
		}
	}
}

// trim keeps everything that facts, warnings and the search for bypasses use.
func TestTrim(t *testing.T) {
	whole := everything()
	small := trim(everything())
	if got, want := podfacts.Of(small, nil), podfacts.Of(whole, nil); !reflect.DeepEqual(got, want) {
		t.Errorf("facts of the trimmed pod: %+v, want %+v", got, want)
	}
	if got, want := podfacts.AsRun(small, nil), podfacts.AsRun(whole, nil); !reflect.DeepEqual(got, want) ||
		*got.Containers[0].RunAsUser != 7 || !slices.Contains(got.Containers[0].SupplementalGroups, 9) ||
		*got.Containers[3].RunAsGroup != 11 {
		t.Errorf("users in the trimmed pod: %+v, want %+v", got, want)
	}
	if got, want := podfacts.MayEscalate(small), []string{"app", "debugger", "logs"}; !slices.Equal(got, want) ||
		!slices.Equal(podfacts.MayEscalate(whole), want) {
		t.Errorf("in the trimmed pod %q may escalate, want %q", got, want)
	}
	since := whole.Status.StartTime.Add(-time.Minute)
	if !HasNetworkSince(small, since) || !HasNetworkSince(whole, since) {
		t.Error("the trimmed pod has no network")
	}
	if name, state := podfacts.InitWait(small); name != "wait" || state.Running == nil {
		t.Errorf("waiting is %q %v", name, state)
	}
	if !podfacts.IsHeld(small) {
		t.Error("the trimmed pod is not held")
	}
	let := everything()
	ended := &corev1.ContainerStateTerminated{Message: "m"}
	let.Status.InitContainerStatuses[1].State = corev1.ContainerState{Terminated: ended}
	if podfacts.IsHeld(trim(let)) {
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
	got, err := json.Marshal(podfacts.Of(pod, map[string]string{annotation.Initialize: "true"}))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"namespace":"shop","name":"cart","uid":"uid-of-cart","annotations":{"sidecar.istio.io/status":""},` +
		`"complete":true,` +
		`"labels":{"sidecar.istio.io/inject":"true"},` +
		`"namespaceAnnotations":{"istio-pod-network-controller/initialize":"true"},` +
		`"runAsUser":1000,"runAsGroup":2000,"fsGroup":2000,"supplementalGroups":[3000],` +
		`"containers":[{"name":"app"},{"name":"istio-proxy","args":["proxy","sidecar"],` +
		`"env":{"ISTIO_META_DNS_CAPTURE":"true"},"unresolved":["INVALID_DROP"],"runAsUser":2000,` +
		`"runAsGroup":1000},{"name":"restricted"}],` +
		`"initContainers":[{"name":"istio-init","netAdmin":true},{"name":"privileged","netAdmin":true},{"name":"all",` +
		`"netAdmin":true},{"name":"wait"},` +
		`{"name":"logs","restartable":true}]}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	bare := podfacts.Of(&corev1.Pod{}, nil)
	if bare.Annotations == nil || !bare.Complete {
		t.Errorf("a pod without annotations is known to have none: %+v", bare)
	}
}

// Only a mirror pod from the kubelet is also known by its hash.
func TestStaticHash(t *testing.T) {
	node := metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: "node", Controller: new(true)}
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		want   bool
	}{
		"as the kubelet makes it": {func(*corev1.Pod) {}, true},
		"no mirror":               {func(p *corev1.Pod) { delete(p.Annotations, KeyMirror) }, false},
		"of no owner":             {func(p *corev1.Pod) { p.OwnerReferences = nil }, false},
		"of another owner":        {func(p *corev1.Pod) { p.OwnerReferences[0].Kind = "ReplicaSet" }, false},
		"of a kind of that name":  {func(p *corev1.Pod) { p.OwnerReferences[0].APIVersion = "example.com/v1" }, false},
		"of another node":         {func(p *corev1.Pod) { p.OwnerReferences[0].Name = "another" }, false},
		"that is no controller":   {func(p *corev1.Pod) { p.OwnerReferences[0].Controller = nil }, false},
	} {
		pod := meshPod()
		pod.OwnerReferences = []metav1.OwnerReference{node}
		pod.Annotations[KeyMirror], pod.Annotations[KeyConfigHash] = "hash", "hash"
		c.change(pod)
		pod = trim(pod)
		if got := IsMeant(pod, "hash"); got != c.want || slices.Contains(IDs(pod), "hash") != c.want {
			t.Errorf("%s: it is meant by the hash: %t, IDs %q", name, got, IDs(pod))
		}
		if !IsMeant(pod, string(pod.UID)) || !IsMeant(pod, "") {
			t.Errorf("%s: it is not meant by its UID", name)
		}
	}
}

// The init wait is a container with our program, or one that has the name of Istio's own.
func TestInitWait(t *testing.T) {
	admin := &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN"}}}
	for name, c := range map[string]struct {
		container corev1.Container
		want      bool
	}{
		"our program": {corev1.Container{Name: "w", Command: []string{"/usr/bin/" + podfacts.WaitProgram, "--mode=any"}},
			true},
		"validation":           {corev1.Container{Name: "istio-validation"}, true},
		"init without a right": {corev1.Container{Name: redirect.InitContainer}, true},
		"init with NET_ADMIN":  {corev1.Container{Name: redirect.InitContainer, SecurityContext: admin}, false},
		"another":              {corev1.Container{Name: "migrate", Command: []string{"/migrate"}}, false},
	} {
		pod := meshPod()
		pod.Spec.InitContainers = []corev1.Container{{Name: "other"}, c.container}
		pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: c.container.Name,
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
		if got, state := podfacts.InitWait(pod); (got != "") != c.want || (state.Running != nil) != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

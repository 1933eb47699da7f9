package main

import (
	"testing"
	"time"

	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestBypasses(t *testing.T) {
	chained := time.Date(2026, 11, 1, 12, 0, 0, 500_000_000, time.UTC)
	at := func(d time.Duration) *metav1.Time { return &metav1.Time{Time: chained.Truncate(time.Second).Add(d)} }
	policy := redirect.DefaultPolicy()
	policy.Agent = true
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		want   bool
	}{
		"started after": {func(*corev1.Pod) {}, true},
		// 12:00:00.9 is told as 12:00:00, and so is 12:00:00.1.
		"started in the same second": {func(p *corev1.Pod) { p.Status.StartTime = at(0) }, false},
		"started before":             {func(p *corev1.Pod) { p.Status.StartTime = at(-time.Minute) }, false},
		"another sandbox much later": {func(p *corev1.Pod) {
			p.Status.StartTime, p.Status.Conditions[0].LastTransitionTime = at(-time.Hour), *at(time.Minute)
		}, true},
		"a sandbox reported a little late": {func(p *corev1.Pod) {
			p.Status.StartTime, p.Status.Conditions[0].LastTransitionTime = at(-time.Hour), *at(20 * time.Second)
		}, false},
		"between two sandboxes": {func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }, false},
		"an older Kubernetes":   {func(p *corev1.Pod) { p.Status.Conditions = nil }, true},
		"no network":            {func(p *corev1.Pod) { p.Status.PodIPs = nil }, false},
		"host network":          {func(p *corev1.Pod) { p.Spec.HostNetwork = true }, false},
		"static":                {func(p *corev1.Pod) { p.Annotations[keyMirror] = "x" }, false},
		"over":                  {func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, false},
		"being deleted":         {func(p *corev1.Pod) { p.DeletionTimestamp = at(0) }, false},
		"not in the mesh":       {func(p *corev1.Pod) { delete(p.Annotations, redirect.KeyStatus) }, false},
		"excluded namespace":    {func(p *corev1.Pod) { p.Namespace = "kube-system" }, false},
		"unreadable":            {func(p *corev1.Pod) { p.Annotations[redirect.KeyExcludeOutboundPorts] = "x" }, false},
	} {
		pod := meshPod("cart")
		pod.Status = corev1.PodStatus{
			Phase: corev1.PodRunning, StartTime: at(2 * time.Second), PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionTrue, LastTransitionTime: *at(3 * time.Second)}},
		}
		c.change(pod)
		if got := bypasses(pod, nil, policy, chained); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
		if bypasses(pod, nil, policy, time.Time{}) {
			t.Errorf("%s: bypasses what is not chained", name)
		}
	}
}

func TestSharesUser(t *testing.T) {
	id := func(n int64) *int64 { return &n }
	for name, c := range map[string]struct {
		change func(*corev1.PodSpec)
		want   string
	}{
		"nothing said": {func(*corev1.PodSpec) {}, ""},
		"pod level":    {func(s *corev1.PodSpec) { s.SecurityContext = &corev1.PodSecurityContext{RunAsUser: id(1337)} }, "user 1337"},
		"pod group":    {func(s *corev1.PodSpec) { s.SecurityContext = &corev1.PodSecurityContext{RunAsGroup: id(1337)} }, "group 1337"},
		"container": {func(s *corev1.PodSpec) {
			s.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsUser: id(1337)}
		}, "user 1337"},
		"another user": {func(s *corev1.PodSpec) {
			s.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsUser: id(1000)}
		}, ""},
		"only the proxy": {func(s *corev1.PodSpec) {
			s.Containers[1].SecurityContext = &corev1.SecurityContext{RunAsUser: id(1337)}
		}, ""},
		"overridden": {func(s *corev1.PodSpec) {
			s.SecurityContext = &corev1.PodSecurityContext{RunAsUser: id(1337)}
			s.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsUser: id(1000)}
		}, ""},
		"an init container": {func(s *corev1.PodSpec) {
			s.InitContainers = []corev1.Container{{Name: "early", SecurityContext: &corev1.SecurityContext{RunAsUser: id(1337)}}}
		}, ""},
	} {
		pod := meshPod("cart")
		c.change(&pod.Spec)
		if _, got := sharesUser(pod, redirect.DefaultSpec()); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	pod := meshPod("cart")
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsGroup: id(0)}
	spec := redirect.DefaultSpec()
	spec.ProxyGID = 0 // exempts no group
	if name, _ := sharesUser(pod, spec); name != "" {
		t.Errorf("%s shares group 0", name)
	}
}

func TestWarnerSaysItOnce(t *testing.T) {
	w, events := heard()
	pod := meshPod("cart")
	for range 3 {
		w.warn(pod, eventInvalid, "bad value %q", "x")
	}
	expectOne(t, events, eventInvalid, `bad value "x"`)
	w.warn(pod, eventInvalid, "bad value %q", "y")
	expectOne(t, events, eventInvalid, `bad value "y"`)
	w.warn(pod, eventStuck, "stuck")
	expectOne(t, events, eventStuck, "stuck")
	w.retract(string(pod.UID), eventStuck)
	w.warn(pod, eventStuck, "stuck")
	expectOne(t, events, eventStuck, "stuck")
	w.forget(func(string) bool { return false })
	if len(w.said) > 0 {
		t.Errorf("%v", w.said)
	}
}

func TestWaiting(t *testing.T) {
	admin := &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN"}}}
	for name, c := range map[string]struct {
		container corev1.Container
		want      bool
	}{
		"our program":          {corev1.Container{Name: "w", Command: []string{"/usr/bin/" + waitProgram, "--mode=any"}}, true},
		"validation":           {corev1.Container{Name: "istio-validation"}, true},
		"init without a right": {corev1.Container{Name: redirect.InitContainer}, true},
		"init with NET_ADMIN":  {corev1.Container{Name: redirect.InitContainer, SecurityContext: admin}, false},
		"another":              {corev1.Container{Name: "migrate", Command: []string{"/migrate"}}, false},
	} {
		pod := meshPod("cart")
		pod.Spec.InitContainers = []corev1.Container{{Name: "other"}, c.container}
		pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: c.container.Name, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
		if got, _ := waiting(pod); (got != "") != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

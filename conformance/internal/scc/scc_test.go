package scc

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// stock are the constraints of the manifest that the e2e tests apply.
func stock(t *testing.T) (all []Constraints) {
	t.Helper()
	data, err := os.ReadFile("stock.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data))); ; {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		var c struct {
			Kind string
			Constraints
		}
		if err == nil {
			err = yaml.Unmarshal(document, &c)
		}
		if err != nil {
			t.Fatal(err)
		}
		if c.Kind == "SecurityContextConstraints" {
			all = append(all, c.Constraints)
		}
	}
}

func to[T any](v T) *T { return &v }

var namespace = map[string]string{KeyUsers: "1000660000/10000", KeyGroups: "1000660000/10000", KeyLevel: "s0:c26,c5"}

// plain is a pod as a person writes it who leaves all of this to the platform.
func plain() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "cart-0"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}}}
}

// everyone may use what everyone may, and more.
func everyone(more ...string) func(string) bool {
	names := strings.Join(append(more, "restricted-v2", "restricted-v3"), ",") + ","
	return func(name string) bool { return strings.Contains(names, name+",") }
}

// What a pod leaves open is filled in, and then nothing is left to change.
func TestFillIn(t *testing.T) {
	pod, err := Admit(plain(), namespace, stock(t), everyone(), false)
	if err != nil {
		t.Fatal(err)
	}
	s, app := pod.Spec.SecurityContext, pod.Spec.Containers[0].SecurityContext
	if pod.Annotations[KeyAdmitted] != "restricted-v2" || *s.FSGroup != 1000660000 || s.SELinuxOptions.Level != "s0:c26,c5" || s.SupplementalGroups != nil ||
		s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("%v %+v", pod.Annotations, s)
	}
	if *app.RunAsUser != 1000660000 || !*app.RunAsNonRoot || *app.AllowPrivilegeEscalation || app.RunAsGroup != nil || len(app.Capabilities.Drop) != 1 || app.Capabilities.Drop[0] != "ALL" {
		t.Errorf("%+v", app)
	}
	if _, err := Admit(pod, namespace, stock(t), everyone(), true); err != nil {
		t.Errorf("what was admitted is refused in the end: %v", err)
	}
	if _, err := Admit(plain(), namespace, stock(t), everyone(), true); err == nil || !strings.Contains(err.Error(), "would have to change the pod") {
		t.Errorf("a pod that was never filled in: %v", err)
	}
}

// Every field that the restricted constraints look at, with the constraints that admit the pod, or what the refusal names.
func TestAdmit(t *testing.T) {
	context := func(pod *corev1.Pod) *corev1.SecurityContext {
		if pod.Spec.Containers[0].SecurityContext == nil {
			pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{}
		}
		return pod.Spec.Containers[0].SecurityContext
	}
	podContext := func(change func(*corev1.PodSecurityContext)) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			pod.Spec.SecurityContext = &corev1.PodSecurityContext{}
			change(pod.Spec.SecurityContext)
		}
	}
	appContext := func(change func(*corev1.SecurityContext)) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { change(context(pod)) }
	}
	volume := func(source corev1.VolumeSource) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: source}} }
	}
	require := func(name string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) { pod.Annotations = map[string]string{KeyRequired: name} }
	}
	for name, c := range map[string]struct {
		change []func(*corev1.Pod)
		more   []string
		want   string // constraints
		no     string // or part of the refusal
	}{
		"nothing said":      {want: "restricted-v2"},
		"user of the range": {change: []func(*corev1.Pod){appContext(func(s *corev1.SecurityContext) { s.RunAsUser = to[int64](1000669999) })}, want: "restricted-v2"},
		"user past the range": {change: []func(*corev1.Pod){appContext(func(s *corev1.SecurityContext) { s.RunAsUser = to[int64](1000670000) })},
			no: "spec.containers[0].securityContext.runAsUser: 1000670000"},
		"user 1337":              {change: []func(*corev1.Pod){appContext(func(s *corev1.SecurityContext) { s.RunAsUser = to[int64](1337) })}, no: "runAsUser: 1337"},
		"user 1337, nonroot":     {change: []func(*corev1.Pod){appContext(func(s *corev1.SecurityContext) { s.RunAsUser = to[int64](1337) })}, more: []string{"nonroot-v2"}, want: "nonroot-v2"},
		"user 1337 at pod level": {change: []func(*corev1.Pod){podContext(func(s *corev1.PodSecurityContext) { s.RunAsUser = to[int64](1337) })}, no: "runAsUser: 1337"},
		"root, nonroot":          {change: []func(*corev1.Pod){appContext(func(s *corev1.SecurityContext) { s.RunAsUser = to[int64](0) })}, more: []string{"nonroot-v2"}, no: "nonroot-v2: spec.containers[0].securityContext.runAsUser: 0"},
		"may be root, nonroot":   {change: []func(*corev1.Pod){appContext(func(s *corev1.SecurityContext) { s.RunAsUser, s.RunAsNonRoot = to[int64](1), to(false) })}, more: []string{"nonroot-v2"}, no: "nonroot-v2: spec.containers[0]"},
		"root, anyuid":           {change: []func(*corev1.Pod){appContext(func(s *corev1.SecurityContext) { s.RunAsUser = to[int64](0) })}, more: []string{"anyuid"}, want: "anyuid"},
		"anyuid comes first":     {more: []string{"anyuid", "privileged"}, want: "anyuid"},
		"privileged comes last":  {more: []string{"nonroot-v2", "privileged"}, want: "restricted-v2"},
		"NET_ADMIN": {change: []func(*corev1.Pod){appContext(func(s *corev1.SecurityContext) {
			s.Capabilities = &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN"}}
		})}, more: []string{"nonroot-v2", "anyuid"}, no: `capabilities.add: "NET_ADMIN"`},
		"NET_ADMIN, privileged": {change: []func(*corev1.Pod){appContext(func(s *corev1.SecurityContext) {
			s.Capabilities = &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN"}}
		})}, more: []string{"privileged"}, want: "privileged"},
		"NET_BIND_SERVICE": {change: []func(*corev1.Pod){appContext(func(s *corev1.SecurityContext) {
			s.Capabilities = &corev1.Capabilities{Add: []corev1.Capability{"NET_BIND_SERVICE"}}
		})}, want: "restricted-v2"},
		"a privileged container": {change: []func(*corev1.Pod){appContext(func(s *corev1.SecurityContext) { s.Privileged = to(true) })}, more: []string{"nonroot-v2", "anyuid"}, no: "securityContext.privileged"},
		"escalation":             {change: []func(*corev1.Pod){appContext(func(s *corev1.SecurityContext) { s.AllowPrivilegeEscalation = to(true) })}, more: []string{"nonroot-v2"}, no: "allowPrivilegeEscalation"},
		"seccomp of its own": {change: []func(*corev1.Pod){appContext(func(s *corev1.SecurityContext) {
			s.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}
		})}, more: []string{"nonroot-v2"}, no: "spec.containers[0].securityContext.seccompProfile"},
		"seccomp of the pod": {change: []func(*corev1.Pod){podContext(func(s *corev1.PodSecurityContext) {
			s.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}
		})}, no: "spec.securityContext.seccompProfile"},
		"seccomp of the node": {change: []func(*corev1.Pod){appContext(func(s *corev1.SecurityContext) {
			s.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: to("x")}
		})}, no: "seccompProfile"},
		"fsGroup 1337":              {change: []func(*corev1.Pod){podContext(func(s *corev1.PodSecurityContext) { s.FSGroup = to[int64](1337) })}, no: "spec.securityContext.fsGroup: 1337"},
		"fsGroup 1337, nonroot":     {change: []func(*corev1.Pod){podContext(func(s *corev1.PodSecurityContext) { s.FSGroup = to[int64](1337) })}, more: []string{"nonroot-v2"}, want: "nonroot-v2"},
		"supplemental groups":       {change: []func(*corev1.Pod){podContext(func(s *corev1.PodSecurityContext) { s.SupplementalGroups = []int64{5} })}, want: "restricted-v2"},
		"supplemental groups in v3": {change: []func(*corev1.Pod){require("restricted-v3"), func(p *corev1.Pod) { p.Spec.HostUsers = to(false) }, podContext(func(s *corev1.PodSecurityContext) { s.SupplementalGroups = []int64{2000, 5} })}, no: "supplementalGroups: 5"},
		"SELinux type":              {change: []func(*corev1.Pod){podContext(func(s *corev1.PodSecurityContext) { s.SELinuxOptions = &corev1.SELinuxOptions{Type: "spc_t"} })}, more: []string{"nonroot-v2"}, no: "seLinuxOptions"},
		"SELinux level of another":  {change: []func(*corev1.Pod){appContext(func(s *corev1.SecurityContext) { s.SELinuxOptions = &corev1.SELinuxOptions{Level: "s0:c1,c2"} })}, no: "spec.containers[0].securityContext.seLinuxOptions"},
		"SELinux type of the pod alone": {change: []func(*corev1.Pod){podContext(func(s *corev1.PodSecurityContext) { s.SELinuxOptions = &corev1.SELinuxOptions{Type: "spc_t"} }),
			appContext(func(s *corev1.SecurityContext) { s.SELinuxOptions = &corev1.SELinuxOptions{Level: "s0:c26,c5"} })}, no: "spec.securityContext.seLinuxOptions"},
		"host network":                      {change: []func(*corev1.Pod){func(p *corev1.Pod) { p.Spec.HostNetwork = true }}, more: []string{"nonroot-v2"}, no: "spec.hostNetwork"},
		"host PID":                          {change: []func(*corev1.Pod){func(p *corev1.Pod) { p.Spec.HostPID = true }}, no: "spec.hostPID"},
		"host IPC":                          {change: []func(*corev1.Pod){func(p *corev1.Pod) { p.Spec.HostIPC = true }}, no: "spec.hostIPC"},
		"host port":                         {change: []func(*corev1.Pod){func(p *corev1.Pod) { p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80}} }}, no: "hostPort: 80"},
		"sysctl":                            {change: []func(*corev1.Pod){podContext(func(s *corev1.PodSecurityContext) { s.Sysctls = []corev1.Sysctl{{Name: "a", Value: "b"}} })}, no: "sysctls"},
		"host path":                         {change: []func(*corev1.Pod){volume(corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{}})}, more: []string{"nonroot-v2", "anyuid"}, no: `spec.volumes[0]: "hostPath"`},
		"downward API":                      {change: []func(*corev1.Pod){volume(corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{}})}, want: "restricted-v2"},
		"a volume that says nothing":        {change: []func(*corev1.Pod){volume(corev1.VolumeSource{})}, want: "restricted-v2"},
		"user namespace":                    {change: []func(*corev1.Pod){require("restricted-v3"), func(p *corev1.Pod) { p.Spec.HostUsers = to(false) }}, want: "restricted-v3"},
		"user namespace, 1337":              {change: []func(*corev1.Pod){func(p *corev1.Pod) { p.Spec.HostUsers = to(false) }, appContext(func(s *corev1.SecurityContext) { s.RunAsUser = to[int64](1337) })}, want: "restricted-v3"},
		"user namespace, group 0":           {change: []func(*corev1.Pod){require("restricted-v3"), func(p *corev1.Pod) { p.Spec.HostUsers = to(false) }, appContext(func(s *corev1.SecurityContext) { s.RunAsGroup = to[int64](0) })}, no: "runAsGroup: 0"},
		"none asked for with host users":    {change: []func(*corev1.Pod){require("restricted-v3")}, no: "spec.hostUsers: null"},
		"required, absent":                  {change: []func(*corev1.Pod){require("none")}, no: `failed to retrieve the required SCC "none"`},
		"required, and not for this person": {change: []func(*corev1.Pod){require("privileged")}, no: "privileged: not usable by user or serviceaccount"},
		"an init container": {change: []func(*corev1.Pod){func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "istio-init", SecurityContext: &corev1.SecurityContext{RunAsUser: to[int64](0)}}}
		}}, no: "spec.initContainers[0].securityContext.runAsUser: 0"},
	} {
		pod := plain()
		for _, change := range c.change {
			change(pod)
		}
		admitted, err := Admit(pod, namespace, stock(t), everyone(c.more...), false)
		switch {
		case c.want != "" && (err != nil || admitted.Annotations[KeyAdmitted] != c.want):
			t.Errorf("%s: %v, want %s", name, err, c.want)
		case c.want == "" && (err == nil || !strings.Contains(err.Error(), c.no)):
			t.Errorf("%s: %v, want %q", name, err, c.no)
		}
	}
}

// A range that cannot be read, or a namespace that has none, refuses.
func TestNamespace(t *testing.T) {
	for text, want := range map[string]string{"10-19": "", "10/10": "", "": "invalid value", "10": "invalid value", "x/y": "invalid value"} {
		pod := plain()
		pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsUser: to[int64](19)}
		_, err := Admit(pod, map[string]string{KeyUsers: text, KeyLevel: "s0"}, stock(t), everyone(), false)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := Admit(plain(), map[string]string{KeyUsers: "1/1"}, stock(t), everyone(), false); err == nil {
		t.Error("without an SELinux level")
	}
}

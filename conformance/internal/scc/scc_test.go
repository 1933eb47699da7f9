package scc

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// stock returns the constraints of the manifest that the end-to-end tests apply.
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

// plain returns a pod without any security settings.
func plain() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "cart-0"},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}}}
}

// everyone returns a mayUse function that allows the constraints for all users, and more.
func everyone(more ...string) func(string) bool {
	names := strings.Join(append(more, "restricted-v2", "restricted-v3"), ",") + ","
	return func(name string) bool { return strings.Contains(names, name+",") }
}

// Fields that a pod does not set are filled in. Afterwards admission has nothing left to change.
func TestFillIn(t *testing.T) {
	pod, err := Admit(plain(), namespace, stock(t), everyone(), false)
	if err != nil {
		t.Fatal(err)
	}
	s, app := pod.Spec.SecurityContext, pod.Spec.Containers[0].SecurityContext
	if pod.Annotations[KeyAdmitted] != "restricted-v2" || *s.FSGroup != 1000660000 ||
		s.SELinuxOptions.Level != "s0:c26,c5" || s.SupplementalGroups != nil ||
		s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("%v %+v", pod.Annotations, s)
	}
	if *app.RunAsUser != 1000660000 || !*app.RunAsNonRoot || *app.AllowPrivilegeEscalation || app.RunAsGroup != nil ||
		!slices.Equal(app.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Errorf("%+v", app)
	}
	if _, err := Admit(pod, namespace, stock(t), everyone(), true); err != nil {
		t.Errorf("what was admitted is refused in the end: %v", err)
	}
	if _, err := Admit(plain(), namespace, stock(t), everyone(), true); err == nil ||
		!strings.Contains(err.Error(), "would have to change the pod") {
		t.Errorf("a pod that was never filled in: %v", err)
	}
}

// change sets something in a pod.
type change = func(*corev1.Pod)

// app returns a change of the security context of the pod's only container.
func app(set func(*corev1.SecurityContext)) change {
	return func(pod *corev1.Pod) {
		c := &pod.Spec.Containers[0]
		if c.SecurityContext == nil {
			c.SecurityContext = &corev1.SecurityContext{}
		}
		set(c.SecurityContext)
	}
}

// whole returns a change of the pod's own security context.
func whole(set func(*corev1.PodSecurityContext)) change {
	return func(pod *corev1.Pod) {
		if pod.Spec.SecurityContext == nil {
			pod.Spec.SecurityContext = &corev1.PodSecurityContext{}
		}
		set(pod.Spec.SecurityContext)
	}
}

func user(id int64) change          { return app(func(s *corev1.SecurityContext) { s.RunAsUser = &id }) }
func group(id int64) change         { return app(func(s *corev1.SecurityContext) { s.RunAsGroup = &id }) }
func fsGroup(id int64) change       { return whole(func(s *corev1.PodSecurityContext) { s.FSGroup = &id }) }
func userNamespace(pod *corev1.Pod) { pod.Spec.HostUsers = to(false) }

func adds(capability corev1.Capability) change {
	return app(func(s *corev1.SecurityContext) {
		s.Capabilities = &corev1.Capabilities{Add: []corev1.Capability{capability}}
	})
}

func requires(name string) change {
	return func(pod *corev1.Pod) { pod.Annotations = map[string]string{KeyRequired: name} }
}

func volume(source corev1.VolumeSource) change {
	return func(pod *corev1.Pod) { pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: source}} }
}

func seccomp(kind corev1.SeccompProfileType) *corev1.SeccompProfile {
	return &corev1.SeccompProfile{Type: kind}
}

// The cases cover every field that the constraints check. Each names the constraints that admit the pod, or a part of
// the error.
func TestAdmit(t *testing.T) {
	const unconfined = corev1.SeccompProfileTypeUnconfined
	for name, c := range map[string]struct {
		pod  []change
		more string // names of constraints that may also be used, separated by spaces
		want string // name of the constraints that admit the pod
		no   string // or a part of the error
	}{
		"nothing said":          {want: "restricted-v2"},
		"anyuid comes first":    {more: "anyuid privileged", want: "anyuid"},
		"privileged comes last": {more: "nonroot-v2 privileged", want: "restricted-v2"},
		"user of the range":     {pod: []change{user(1000669999)}, want: "restricted-v2"},
		"user past the range": {pod: []change{user(1000670000)},
			no: "spec.containers[0].securityContext.runAsUser: 1000670000"},
		"user 1337":          {pod: []change{user(1337)}, no: "runAsUser: 1337"},
		"user 1337, nonroot": {pod: []change{user(1337)}, more: "nonroot-v2", want: "nonroot-v2"},
		"user 1337 at pod level": {pod: []change{whole(func(s *corev1.PodSecurityContext) { s.RunAsUser = to[int64](1337) })},
			no: "runAsUser: 1337"},
		"root, nonroot": {pod: []change{user(0)}, more: "nonroot-v2",
			no: "nonroot-v2: spec.containers[0].securityContext.runAsUser: 0"},
		"root, anyuid": {pod: []change{user(0)}, more: "anyuid", want: "anyuid"},
		"may be root, nonroot": {pod: []change{user(1), app(func(s *corev1.SecurityContext) { s.RunAsNonRoot = to(false) })},
			more: "nonroot-v2",
			no:   "nonroot-v2: spec.containers[0]"},
		"an init container as root": {pod: []change{func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "istio-init",
				SecurityContext: &corev1.SecurityContext{RunAsUser: to[int64](0)}}}
		}}, no: "spec.initContainers[0].securityContext.runAsUser: 0"},

		"NET_ADMIN": {pod: []change{adds("NET_ADMIN")}, more: "nonroot-v2 anyuid",
			no: `capabilities.add: "NET_ADMIN"`},
		"NET_ADMIN, privileged": {pod: []change{adds("NET_ADMIN")}, more: "privileged", want: "privileged"},
		"NET_BIND_SERVICE":      {pod: []change{adds("NET_BIND_SERVICE")}, want: "restricted-v2"},
		"a privileged container": {pod: []change{app(func(s *corev1.SecurityContext) { s.Privileged = to(true) })},
			more: "nonroot-v2 anyuid", no: "securityContext.privileged"},
		"escalation": {pod: []change{app(func(s *corev1.SecurityContext) { s.AllowPrivilegeEscalation = to(true) })},
			more: "nonroot-v2",
			no:   "allowPrivilegeEscalation"},

		"seccomp of its own": {pod: []change{app(func(s *corev1.SecurityContext) { s.SeccompProfile = seccomp(unconfined) })},
			more: "nonroot-v2",
			no:   "spec.containers[0].securityContext.seccompProfile"},
		"seccomp of the pod": {pod: []change{whole(
			func(s *corev1.PodSecurityContext) { s.SeccompProfile = seccomp(unconfined) })},
			no: "spec.securityContext.seccompProfile"},
		"seccomp of the node": {pod: []change{app(func(s *corev1.SecurityContext) {
			s.SeccompProfile = seccomp(corev1.SeccompProfileTypeLocalhost)
			s.SeccompProfile.LocalhostProfile = to("x")
		})}, no: "seccompProfile"},

		"fsGroup 1337":          {pod: []change{fsGroup(1337)}, no: "spec.securityContext.fsGroup: 1337"},
		"fsGroup 1337, nonroot": {pod: []change{fsGroup(1337)}, more: "nonroot-v2", want: "nonroot-v2"},
		"supplemental groups": {pod: []change{whole(
			func(s *corev1.PodSecurityContext) { s.SupplementalGroups = []int64{5} })}, want: "restricted-v2"},
		"supplemental groups in v3": {pod: []change{requires("restricted-v3"), userNamespace,
			whole(func(s *corev1.PodSecurityContext) {
				s.SupplementalGroups = []int64{2000, 5}
			})}, no: "supplementalGroups: 5"},

		"SELinux type": {pod: []change{whole(
			func(s *corev1.PodSecurityContext) { s.SELinuxOptions = &corev1.SELinuxOptions{Type: "spc_t"} })},
			more: "nonroot-v2",
			no:   "seLinuxOptions"},
		"SELinux level of another": {pod: []change{app(
			func(s *corev1.SecurityContext) { s.SELinuxOptions = &corev1.SELinuxOptions{Level: "s0:c1,c2"} })},
			no: "spec.containers[0].securityContext.seLinuxOptions"},
		"SELinux type of the pod alone": {pod: []change{
			whole(func(s *corev1.PodSecurityContext) { s.SELinuxOptions = &corev1.SELinuxOptions{Type: "spc_t"} }),
			app(func(s *corev1.SecurityContext) { s.SELinuxOptions = &corev1.SELinuxOptions{Level: "s0:c26,c5"} }),
		}, no: "spec.securityContext.seLinuxOptions"},

		"host network": {pod: []change{func(p *corev1.Pod) { p.Spec.HostNetwork = true }}, more: "nonroot-v2",
			no: "spec.hostNetwork"},
		"host PID": {pod: []change{func(p *corev1.Pod) { p.Spec.HostPID = true }}, no: "spec.hostPID"},
		"host IPC": {pod: []change{func(p *corev1.Pod) { p.Spec.HostIPC = true }}, no: "spec.hostIPC"},
		"host port": {pod: []change{func(
			p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80}}
		}}, no: "hostPort: 80"},
		"sysctl": {pod: []change{whole(
			func(s *corev1.PodSecurityContext) { s.Sysctls = []corev1.Sysctl{{Name: "a", Value: "b"}} })},
			no: "sysctls"},
		"safe sysctl": {pod: []change{whole(func(s *corev1.PodSecurityContext) {
			s.Sysctls = []corev1.Sysctl{{Name: "net.ipv4.ip_unprivileged_port_start", Value: "0"}} // as in Istio's gateways
		})}, want: "restricted-v2"},
		"host path": {pod: []change{volume(corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{}})},
			more: "nonroot-v2 anyuid",
			no:   `spec.volumes[0]: "hostPath"`},
		"downward API": {pod: []change{volume(
			corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{}})}, want: "restricted-v2"},
		"a volume that says nothing": {pod: []change{volume(corev1.VolumeSource{})}, want: "restricted-v2"},

		"user namespace":       {pod: []change{requires("restricted-v3"), userNamespace}, want: "restricted-v3"},
		"user namespace, 1337": {pod: []change{userNamespace, user(1337)}, want: "restricted-v3"},
		"user namespace, group 0": {pod: []change{requires("restricted-v3"), userNamespace, group(0)},
			no: "runAsGroup: 0"},
		"none asked for with host users": {pod: []change{requires("restricted-v3")}, no: "spec.hostUsers: null"},
		"required, absent": {pod: []change{requires("none")},
			no: `failed to retrieve the required SCC "none"`},
		"required, and not for this person": {pod: []change{requires("privileged")},
			no: "privileged: not usable by user or serviceaccount"},
	} {
		pod := plain()
		for _, change := range c.pod {
			change(pod)
		}
		admitted, err := Admit(pod, namespace, stock(t), everyone(strings.Fields(c.more)...), false)
		switch {
		case c.want != "" && (err != nil || admitted.Annotations[KeyAdmitted] != c.want):
			t.Errorf("%s: %v, want %s", name, err, c.want)
		case c.want == "" && (err == nil || !strings.Contains(err.Error(), c.no)):
			t.Errorf("%s: %v, want %q", name, err, c.no)
		}
	}
}

// A namespace with an invalid range, or without a required annotation, admits no pod.
func TestNamespace(t *testing.T) {
	for text, want := range map[string]string{"10-19": "", "10/10": "", "": "invalid value", "10": "invalid value",
		"x/y": "invalid value"} {
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

// Constraints that require a read-only root file system set it for a container that does not set it, and reject one
// that turns it off.
func TestReadOnlyRoot(t *testing.T) {
	all := stock(t)
	for i := range all {
		all[i].ReadOnlyRootFilesystem = true
	}
	pod, err := Admit(plain(), namespace, all, everyone(), false)
	if err != nil || !*pod.Spec.Containers[0].SecurityContext.ReadOnlyRootFilesystem {
		t.Fatalf("%v, %+v", err, pod)
	}
	writes := plain()
	writes.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{ReadOnlyRootFilesystem: to(false)}
	if _, err := Admit(writes, namespace, all, everyone(), false); err == nil ||
		!strings.Contains(err.Error(), "securityContext.readOnlyRootFilesystem: false is not allowed") {
		t.Error(err)
	}
}

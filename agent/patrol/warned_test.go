package patrol

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
)

// A user that only the image defines is known from the container's status. A pod that the plugin refuses is reported as
// such.
func TestSharedUser(t *testing.T) {
	linux := func(user, group int64) *corev1.ContainerUser {
		return &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: user, GID: group}}
	}
	const refused = ". Give it another. Such a pod is not let start"
	always, shared := corev1.ContainerRestartPolicyAlways, int64(1337)
	debugger := func(s corev1.SecurityContext) []corev1.EphemeralContainer {
		s.AllowPrivilegeEscalation = new(false)
		return []corev1.EphemeralContainer{
			{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debugger", SecurityContext: &s}},
		}
	}
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		want   string
	}{
		"by the spec": {func(p *corev1.Pod) { p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &shared} },
			"Container app runs with the user 1337 of the sidecar, so its traffic is taken for the sidecar's own and bypasses " +
				"the mesh" + refused},
		"by fsGroup": {func(p *corev1.Pod) { p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &shared} },
			"Container app has the group 1337 of the sidecar by its fsGroup, so a program that is setgid to that group " +
				"bypasses the mesh" + refused},
		"by supplementalGroups": {func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{SupplementalGroups: []int64{1337}}
		}, "Container app has the group 1337 of the sidecar by its supplemental group" +
			", so a program that is setgid to that group bypasses the mesh" + refused},
		"by a group of the image's": {func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", User: linux(1, 1)}}
			p.Status.ContainerStatuses[0].User.Linux.SupplementalGroups = []int64{1, 1337}
		}, "Container app has the group 1337 of the sidecar by its supplemental group"},
		"an ephemeral container's user": {func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = debugger(corev1.SecurityContext{RunAsUser: &shared})
		}, "Container debugger runs with the user 1337"},
		"an ephemeral container's group": {func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = debugger(corev1.SecurityContext{RunAsGroup: &shared})
		}, "Container debugger runs with the group 1337"},
		"an ephemeral container's user, by the image": {func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = debugger(corev1.SecurityContext{})
			p.Status.EphemeralContainerStatuses = []corev1.ContainerStatus{{Name: "debugger", User: linux(1337, 1)}}
		}, "Container debugger runs with the user 1337"},
		"another ephemeral container": {func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = debugger(corev1.SecurityContext{})
			p.Status.EphemeralContainerStatuses = []corev1.ContainerStatus{{Name: "debugger", User: linux(0, 0)}}
		}, ""},
		"by the image": {func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", User: linux(1337, 0)}}
		}, "user 1337"},
		"group, by the image": {func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", User: linux(1, 1337)}}
		}, "group 1337"},
		"not by the image": {func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", User: linux(1, 1)}}
		}, ""},
		"the sidecar alone": {func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app"},
				{Name: redirect.ProxyContainer, User: linux(1337, 1337)}, {Name: "gone", User: linux(1337, 1)}}
		}, ""},
		"a native sidecar": {func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "early"}, {Name: "late", RestartPolicy: &always,
				SecurityContext: p.Spec.Containers[0].SecurityContext}}
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "early", User: linux(1337, 1)},
				{Name: "late", User: linux(1337, 1)}}
		}, "Container late runs with the user 1337"},
	} {
		for _, policy := range []redirect.SharedProxyUser{redirect.SharedWarn, redirect.SharedRefuse} {
			w, events := heard()
			pod := agenttest.MeshPod("cart")
			c.change(pod)
			settings := redirect.DefaultPolicy()
			settings.SharedProxyUser = policy
			w.aboutSettings(pod, nil, settings, record.Record{}, written{}, false)
			want := c.want
			if policy == redirect.SharedWarn {
				want = strings.TrimSuffix(want, refused)
			}
			if want == "" {
				if all := sent(events); len(all) > 0 {
					t.Errorf("%s: %q", name, all)
				}
				continue
			}
			expectOne(t, events, eventSharedUser, want)
		}
	}
}

// The sidecar's IDs in the rules are those in the record: an annotation that is set, changed or removed later does not
// hide a container that runs with them.
func TestSharedUserThen(t *testing.T) {
	for name, now := range map[string]map[string]string{
		"taken away": {annotation.SidecarStatus: "{}"},
		"changed":    {annotation.SidecarStatus: "{}", annotation.EnvoyUserID: "5000"},
		"unreadable": {annotation.SidecarStatus: "{}", annotation.EnvoyUserID: "x"},
		"opted out":  {annotation.SidecarStatus: "{}", annotation.Initialize: "false"},
		"bare":       nil,
	} {
		pod := agenttest.Running("cart")
		spec := redirect.DefaultSpec()
		spec.ProxyUID = 4000
		r := agenttest.RecordFor(pod, "1/1")
		var err error
		r.Spec, err = json.Marshal(spec)
		await.Must(t, err)
		pod.Annotations = now
		pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
			Name: "debugger", SecurityContext: &corev1.SecurityContext{RunAsUser: new(int64(4000))}}}}
		b := patrolling(t, pod)
		b.records["r"] = r
		b.round(t.Context(), time.Now())
		if all := strings.Join(sent(b.events), "\n"); !strings.Contains(all, "Container debugger runs with the user 4000") {
			t.Errorf("%s: Events %q", name, all)
		}
	}
}

// If a container may gain privileges, it is reported once for each mesh pod, and for no other pod.
func TestEscalationIsAllowed(t *testing.T) {
	inMesh := func(*corev1.Pod) {}
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		allow  *bool // of the app
		want   string
	}{
		"forbidden":         {inMesh, new(false), ""},
		"not forbidden":     {inMesh, nil, "In app a program"},
		"allowed":           {inMesh, new(true), "In app a program"},
		"not in the mesh":   {func(p *corev1.Pod) { p.Annotations = nil }, nil, ""},
		"without a context": {func(p *corev1.Pod) { p.Spec.Containers[0].SecurityContext = nil }, nil, "In app a program"},
		"in another container too": {func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "logs"})
		}, nil, "In app, logs a program"},
	} {
		w, events := heard()
		pod := agenttest.MeshPod("cart")
		pod.Spec.Containers[0].SecurityContext.AllowPrivilegeEscalation = c.allow
		c.change(pod)
		w.aboutSettings(pod, nil, redirect.DefaultPolicy(), record.Record{}, written{}, false)
		if c.want == "" {
			if all := sent(events); len(all) > 0 {
				t.Errorf("%s: %q", name, all)
			}
			continue
		}
		expectOne(t, events, eventEscalation, c.want)
		key := warning{pod.UID, eventEscalation}
		w.sent[key] = sentEvent{w.sent[key].text, time.Now().Add(-repeatAfter)}
		w.aboutSettings(pod, nil, redirect.DefaultPolicy(), record.Record{}, written{}, false)
		if all := sent(events); len(all) > 0 {
			t.Errorf("%s: said again: %q", name, all)
		}
	}
}

// An app in a group that is not captured bypasses the mesh. An init container does not.
func TestGroupLeftOut(t *testing.T) {
	for _, app := range []bool{true, false} {
		w, events := heard()
		pod := agenttest.MeshPod("cart")
		pod.Spec.Containers[0].SecurityContext.AllowPrivilegeEscalation = new(false)
		pod.Annotations[annotation.OwnExcludeOutboundOwnerGroups] = "1338"
		context := &corev1.SecurityContext{RunAsGroup: new(int64(1338)), AllowPrivilegeEscalation: new(false)}
		if app {
			pod.Spec.Containers[0].SecurityContext = context
		} else {
			pod.Spec.InitContainers = append([]corev1.Container{{Name: "migrate", SecurityContext: context}},
				pod.Spec.InitContainers...)
		}
		w.aboutSettings(pod, nil, redirect.DefaultPolicy(), record.Record{}, written{}, false)
		if app {
			expectOne(t, events, eventLeftOut, "Container app runs in the group 1338")
		} else if all := sent(events); len(all) > 0 {
			t.Errorf("%q", all)
		}
	}
}

// A sidecar that listens in IPv4 only refuses its pod's IPv6: that is reported once, and counted. The families that
// were captured when the pod got its network count. If the sidecar's environment is unknown, nothing is reported.
func TestIPv6Refused(t *testing.T) {
	both := []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}}
	elsewhere := corev1.EnvVar{Name: redirect.EnvDualStack, ValueFrom: &corev1.EnvVarSource{}}
	captured := func(families string) func(*record.Record) { return func(r *record.Record) { r.Families = families } }
	for name, c := range map[string]struct {
		ips    []corev1.PodIP
		env    []corev1.EnvVar
		other  bool // not in the mesh
		choice redirect.Captured
		record func(*record.Record) // nil: there is none
		want   float64
	}{
		"both": {ips: both, want: 1}, "both, IPv6 first": {ips: []corev1.PodIP{both[1], both[0]}, want: 1},
		"listens in both":       {ips: both, env: []corev1.EnvVar{{Name: redirect.EnvDualStack, Value: "true"}}},
		"says that it does not": {ips: both, env: []corev1.EnvVar{{Name: redirect.EnvDualStack, Value: "false"}}, want: 1},
		"says so elsewhere":     {ips: both, env: []corev1.EnvVar{elsewhere}},
		"IPv4":                  {ips: both[:1]}, "IPv6": {ips: both[1:]}, "no address": {},
		"not in the mesh":         {ips: both, other: true},
		"no record, by the proxy": {ips: both, choice: redirect.CapturedProxy},
		"a record":                {ips: both, record: captured(""), want: 1},
		"IPv4 alone":              {ips: both, record: captured("IPv4")},
		"IPv4 alone, now by both": {ips: both, record: captured("IPv4"), choice: redirect.CapturedAll},
		"IPv6 alone":              {ips: both, record: captured("IPv6"), want: 1},
		"both, now by the proxy":  {ips: both, record: captured(""), choice: redirect.CapturedProxy, want: 1},
		"rules of another": {ips: both, record: func(r *record.Record) {
			r.Decision, r.Reason = record.Untouched, string(redirect.ReasonForeignRules)
		}},
	} {
		pod := agenttest.MeshPod("cart")
		pod.Spec.Containers[0].SecurityContext.AllowPrivilegeEscalation = new(false)
		pod.Status.PodIPs = c.ips
		for i := range pod.Spec.Containers {
			if pod.Spec.Containers[i].Name == redirect.ProxyContainer {
				pod.Spec.Containers[i].Env = c.env
			}
		}
		if c.other {
			pod.Annotations = nil
		}
		b := patrolling(t, pod)
		if c.choice != "" {
			b.Policy.Redirect.Families = c.choice
		}
		if c.record != nil {
			r := agenttest.RecordFor(pod, "1/1")
			c.record(&r)
			b.records[string(pod.UID)] = r
		}
		b.round(t.Context(), time.Now())
		registry := prometheus.NewRegistry()
		registry.MustRegister(b.Metrics.Refusing)
		gathered, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		if got := gathered[0].Metric[0].GetGauge().GetValue(); got != c.want {
			t.Errorf("%s: %v pods refuse IPv6, want %v", name, got, c.want)
		}
		if said := strings.Contains(strings.Join(sent(b.events), ""), eventFamily); said != (c.want == 1) {
			t.Errorf("%s: said: %t", name, said)
		}
		key := warning{pod.UID, eventFamily}
		if last, known := b.Warner.sent[key]; known {
			b.Warner.sent[key] = sentEvent{last.text, time.Now().Add(-repeatAfter)}
		}
		b.round(t.Context(), time.Now())
		if all := strings.Join(sent(b.events), ""); strings.Contains(all, eventFamily) {
			t.Errorf("%s: said again: %q", name, all)
		}
	}
}

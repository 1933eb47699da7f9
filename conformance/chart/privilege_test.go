package chart

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// The agent has only the rights on the node and at the API server that it uses, and for each value of repair those that
// it needs.
func TestLeastPrivilege(t *testing.T) {
	page := readText(t, filepath.Join(build.Root(), "docs", "operation.md"))
	files := []corev1.Capability{"CHOWN", "DAC_OVERRIDE", "FOWNER", "LEASE"}
	ours := []string{"config", "token", "cni-bin", "cni-conf", "state", "cni-cache"}
	for mode, want := range map[string]struct {
		capabilities []corev1.Capability
		mounts       []string
		deletes      bool
	}{
		"off":    {files, ours, false},
		"delete": {files, ours, true},
		"apply": {[]corev1.Capability{"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "LEASE", "NET_ADMIN",
			"SETGID", "SETUID", "SYS_ADMIN"},
			append(slices.Clone(ours), "netns"), false},
	} {
		manifests := template(t, "helm4", "repair="+mode)
		agent := daemonSet(t, manifests)
		c := agent.SecurityContext
		if !slices.Equal(c.Capabilities.Add, want.capabilities) || c.Privileged == nil || *c.Privileged {
			t.Errorf("repair %s: capabilities %v, privileged %v", mode, c.Capabilities.Add, c.Privileged)
		}
		if *agent.SecurityContext.AllowPrivilegeEscalation != (mode == "apply") ||
			!slices.Contains(agent.Args, "--repair="+mode) {
			t.Errorf("repair %s: %+v %q", mode, agent.SecurityContext, agent.Args)
		}
		var mounts, paths []string
		for _, m := range agent.VolumeMounts {
			mounts = append(mounts, m.Name)
			if !slices.Contains(ours, m.Name) {
				paths = append(paths, m.MountPath)
			}
			if writes := slices.Contains([]string{"cni-bin", "cni-conf", "state"}, m.Name); m.ReadOnly == writes {
				t.Errorf("repair %s: %s is read-only: %t", mode, m.Name, m.ReadOnly)
			}
		}
		if !slices.Equal(mounts, want.mounts) {
			t.Errorf("repair %s: mounts %v, want %v", mode, mounts, want.mounts)
		}
		row := regexp.MustCompile("(?m)^\\| `" + mode + "`.*$").FindString(page)
		always := func(name string) bool { return slices.Contains(files, corev1.Capability(name)) }
		said, has := saidIn(row, "`CAP_([A-Z_]+)`"), slices.DeleteFunc(capabilities(agent), always)
		if !slices.Equal(said, has) {
			t.Errorf("repair %s: operation.md says that the agent has the capabilities %q for it, and it has %q", mode, said,
				has)
		}
		for _, name := range files {
			if !strings.Contains(page, "`CAP_"+string(name)+"`") {
				t.Errorf("operation.md does not say that the agent has CAP_%s", name)
			}
		}
		if said := saidIn(row, "`(/[^`]*)`"); !slices.Equal(said, paths) {
			t.Errorf("repair %s: operation.md says that the agent has %q for it, and it has %q", mode, said, paths)
		}
		for _, name := range []string{"name: istio-pod-network-agent-repair", "name: istio-pod-network-repair"} {
			if strings.Contains(manifests, name+"\n") != want.deletes {
				t.Errorf("repair %s: %s is rendered: %t", mode, name, !want.deletes)
			}
		}
		if strings.Contains(manifests, "verbs: [delete]") != want.deletes {
			t.Errorf("repair %s: the right to delete: %t", mode, !want.deletes)
		}
		taken(t, manifests)
	}
}

// saidIn returns what a pattern finds in a row of a page, sorted.
func saidIn(row, pattern string) (found []string) {
	for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(row, -1) {
		found = append(found, match[1])
	}
	slices.Sort(found)
	return found
}

func capabilities(c corev1.Container) (names []string) {
	for _, name := range c.SecurityContext.Capabilities.Add {
		names = append(names, string(name))
	}
	slices.Sort(names)
	return names
}

// Rules are renewed only in the namespaces that the operator names.
func TestRenewRules(t *testing.T) {
	for values, want := range map[string]string{
		"renewRules={shop,team-*}": "--renew-rules=shop,team-*", "renewRules={*}": "--renew-rules=*", "agent.port=15088": "",
	} {
		manifests := template(t, "helm4", values)
		args := daemonSet(t, manifests).Args
		if want != "" && !slices.Contains(args, want) || strings.Contains(strings.Join(args, " "), "renew") != (want != "") {
			t.Errorf("%s: %q", values, args)
		}
		taken(t, manifests)
	}
}

// The agent mounts nothing else of the node, and is scheduled before whatever needs it.
func TestAgentPod(t *testing.T) {
	manifests := template(t, "helm4", "repair=off")
	var d appsv1.DaemonSet
	find(t, manifests, "DaemonSet", "istio-pod-network-agent", &d)
	spec := d.Spec.Template.Spec
	c := spec.Containers[0].SecurityContext
	switch {
	case *c.Privileged || *c.AllowPrivilegeEscalation || !*c.ReadOnlyRootFilesystem:
		t.Errorf("%+v", c)
	case slices.Contains(c.Capabilities.Add, "SYS_ADMIN") || len(c.Capabilities.Drop) != 1 ||
		c.Capabilities.Drop[0] != "ALL":
		t.Errorf("%+v", c.Capabilities)
	case c.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault:
		t.Errorf("%+v", c.SeccompProfile)
	case spec.HostPID || spec.HostIPC || !spec.HostNetwork:
		t.Errorf("host namespaces: PID %v, IPC %v, network %v", spec.HostPID, spec.HostIPC, spec.HostNetwork)
	case spec.PriorityClassName != "system-node-critical" || spec.NodeSelector["kubernetes.io/os"] != "linux":
		t.Errorf("%q %v", spec.PriorityClassName, spec.NodeSelector)
	case len(spec.Tolerations) != 1 || spec.Tolerations[0] != (corev1.Toleration{Operator: corev1.TolerationOpExists}):
		t.Errorf("%v", spec.Tolerations)
	}
	for name, probe := range map[string]*corev1.Probe{
		"startup": spec.Containers[0].StartupProbe, "liveness": spec.Containers[0].LivenessProbe,
		"readiness": spec.Containers[0].ReadinessProbe,
	} {
		if want := map[bool]string{true: "/readyz", false: "/healthz"}[name == "readiness"]; probe.HTTPGet.Path != want {
			t.Errorf("the %s probe asks for %s", name, probe.HTTPGet.Path)
		}
	}
}

// The agent's rights are those in agent/rbac.yaml, byte for byte except for the chart's labels, in every namespace.
func TestRights(t *testing.T) {
	manifests := regexp.MustCompile(`(?m)^  labels:\n(    .*\n)+`).ReplaceAllString(template(t, "helm4"), "")
	rbac := readText(t, filepath.Join(build.Root(), "agent", "rbac.yaml"))
	if readText(t, filepath.Join(dir(), "files", "rbac.yaml")) != rbac {
		t.Error("files/rbac.yaml is not agent/rbac.yaml")
	}
	for _, o := range strings.Split(rbac, "---\n") { // Helm sorts the objects
		body := regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(o, "")
		if !strings.Contains(manifests, strings.TrimSpace(body)) && !strings.Contains(manifests, strings.TrimSpace(o)) {
			t.Errorf("not rendered byte for byte:\n%s", o)
		}
	}
	other, _, err := program(nil, "helm4", "template", "-n", "mesh-system", dir())
	if err != nil || strings.Contains(other, "namespace: "+system) {
		t.Errorf("in another namespace: %v\n%s", err, other)
	}
}

// The hook and the test's pod comply with Pod Security restricted, except that the hook uses the node's network.
func TestHooksAreRestricted(t *testing.T) {
	manifests := template(t, "helm4", "hooks=true")
	apply(t, "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: istio-pod-network-test\n  labels: "+
		"{pod-security.kubernetes.io/enforce: restricted}\n")
	var pod corev1.Pod
	if !find(t, manifests, "Pod", "mesh-pod", &pod) {
		t.Fatal("no pod")
	}
	var job batchv1.Job
	if !find(t, manifests, "Job", "istio-pod-network-uninstall", &job) {
		t.Fatal("no job")
	}
	spec := job.Spec.Template.Spec
	spec.HostNetwork = false
	admitted := func(what string, pod corev1.Pod) {
		pod.APIVersion, pod.Kind, pod.Namespace = "v1", "Pod", "istio-pod-network-test"
		data, err := yaml.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		if _, errs, err := program(data, "kubectl", "create", "--dry-run=server", "-f", "-"); err != nil {
			t.Errorf("%s: %s", what, errs)
		}
	}
	admitted("the test's pod", pod)
	uninstall := corev1.Pod{Spec: spec}
	uninstall.Name = "uninstall"
	uninstall.Spec.PriorityClassName = ""
	admitted("the hook", uninstall)
	uninstall.Spec.Containers[0].SecurityContext.Capabilities.Drop = nil // a control: the namespace refuses this
	data, _ := yaml.Marshal(uninstall)
	data = append([]byte("apiVersion: v1\nkind: Pod\n"), data...)
	_, errs, err := program(data, "kubectl", "create", "-n", "istio-pod-network-test", "--dry-run=server", "-f", "-")
	if err == nil || !strings.Contains(errs, "violates PodSecurity") {
		t.Errorf("a pod that keeps its capabilities: %v %s", err, errs)
	}
}

package chart

import (
	"os"
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

func TestLint(t *testing.T) {
	both(t, func(t *testing.T, helm string) {
		if out, errs, err := program(nil, helm, "lint", "--strict", dir()); err != nil || strings.Contains(out, "[WARNING]") {
			t.Errorf("%v %s %s", err, out, errs)
		}
	})
}

// presets are the distributions with where their CNI directories are.
var presets = []struct {
	name, bin, conf, mode string
	quota                 bool
	seLinux               string
}{
	{"Kubernetes", "/opt/cni/bin", "/etc/cni/net.d", "chain", false, ""},
	{"Kubeadm", "/opt/cni/bin", "/etc/cni/net.d", "chain", false, ""},
	{"OpenShift", "/var/lib/cni/bin", "/etc/cni/multus/net.d", "nad", false, "spc_t"},
	{"GKE", "/home/kubernetes/bin", "/etc/cni/net.d", "chain", true, ""},
	{"EKS", "/opt/cni/bin", "/etc/cni/net.d", "chain", false, ""},
	{"AKS", "/opt/cni/bin", "/etc/cni/net.d", "chain", false, ""},
	{"K3s", "/var/lib/rancher/k3s/data/cni", "/var/lib/rancher/k3s/agent/etc/cni/net.d", "chain", false, ""},
	{"K3d", "/bin", "/var/lib/rancher/k3s/agent/etc/cni/net.d", "chain", false, ""},
	{"RKE2", "/opt/cni/bin", "/etc/cni/net.d", "chain", false, ""},
	{"MicroK8s", "/var/snap/microk8s/current/opt/cni/bin", "/var/snap/microk8s/current/args/cni-network", "chain", false, ""},
	{"Minikube", "/opt/cni/bin", "/etc/cni/net.d", "chain", false, ""},
	{"Kind", "/opt/cni/bin", "/etc/cni/net.d", "chain", false, ""},
	{"Talos", "/opt/cni/bin", "/etc/cni/net.d", "chain", false, ""},
}

// Every distribution's directories are those of the table, in the flags and on the node alike, and the API server takes all of it.
func TestPresets(t *testing.T) {
	var chart struct {
		Properties map[string]struct{ Enum []string }
	}
	read(t, filepath.Join(dir(), "values.schema.json"), &chart)
	var listed []string
	for _, p := range presets {
		listed = append(listed, p.name)
	}
	if got := chart.Properties["kubernetesDistribution"].Enum; !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(listed))) {
		t.Errorf("the schema lists %v, this test %v", got, listed)
	}
	apply(t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+system+"}\n")
	both(t, func(t *testing.T, helm string) {
		for _, p := range presets {
			manifests := template(t, helm, "kubernetesDistribution="+p.name)
			taken(t, manifests)
			agent := daemonSet(t, manifests)
			for _, flag := range []string{"--bin-dir=" + p.bin, "--conf-dir=" + p.conf, "--mode=" + p.mode} {
				if !slices.Contains(agent.Args, flag) {
					t.Errorf("%s: no %s in %q", p.name, flag, agent.Args)
				}
			}
			for _, path := range []string{p.bin, p.conf, "/run/istio-pod-network"} {
				if !strings.Contains(manifests, `hostPath: {path: "`+path+`"`) || !strings.Contains(manifests, `mountPath: "`+path+`"`) {
					t.Errorf("%s: %s is not mounted under the same path", p.name, path)
				}
			}
			if quota := strings.Contains(manifests, "kind: ResourceQuota"); quota != p.quota {
				t.Errorf("%s: quota is %v", p.name, quota)
			}
			if o := agent.SecurityContext.SELinuxOptions; (o == nil) != (p.seLinux == "") || o != nil && o.Type != p.seLinux {
				t.Errorf("%s: SELinux options are %v", p.name, o)
			}
		}
	})
}

func daemonSet(t testing.TB, manifests string) corev1.Container {
	t.Helper()
	var d appsv1.DaemonSet
	if !find(t, manifests, "DaemonSet", "istio-pod-network-agent", &d) {
		t.Fatalf("no DaemonSet in\n%s", manifests)
	}
	return d.Spec.Template.Spec.Containers[0]
}

// read reads a file of YAML or JSON.
func read(t testing.TB, path string, into any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = yaml.Unmarshal(data, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// The agent has no more of the node and of the API server than it uses.
func TestLeastPrivilege(t *testing.T) {
	manifests := template(t, "helm4")
	var d appsv1.DaemonSet
	find(t, manifests, "DaemonSet", "istio-pod-network-agent", &d)
	spec := d.Spec.Template.Spec
	c := spec.Containers[0].SecurityContext
	switch {
	case *c.Privileged || *c.AllowPrivilegeEscalation || !*c.ReadOnlyRootFilesystem:
		t.Errorf("%+v", c)
	case len(c.Capabilities.Add) > 0 || len(c.Capabilities.Drop) != 1 || c.Capabilities.Drop[0] != "ALL":
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
		"startup": spec.Containers[0].StartupProbe, "liveness": spec.Containers[0].LivenessProbe, "readiness": spec.Containers[0].ReadinessProbe,
	} {
		if want := map[bool]string{true: "/readyz", false: "/healthz"}[name == "readiness"]; probe.HTTPGet.Path != want {
			t.Errorf("the %s probe asks for %s", name, probe.HTTPGet.Path)
		}
	}
	rbac, err := os.ReadFile(filepath.Join(build.Root(), "agent", "rbac.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	copied, err := os.ReadFile(filepath.Join(dir(), "files", "rbac.yaml"))
	if err != nil || string(copied) != string(rbac) {
		t.Errorf("files/rbac.yaml is not agent/rbac.yaml: %v", err)
	}
	for _, o := range strings.Split(string(rbac), "---\n") { // Helm sorts the objects
		body := regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(o, "")
		if !strings.Contains(manifests, strings.TrimSpace(body)) && !strings.Contains(manifests, strings.TrimSpace(o)) {
			t.Errorf("not rendered byte for byte:\n%s", o)
		}
	}
	if other, _, err := program(nil, "helm4", "template", "-n", "mesh-system", dir()); err != nil || strings.Contains(other, "namespace: "+system) {
		t.Errorf("in another namespace: %v\n%s", err, other)
	}
}

// Everything that is optional, at once, with other names of things.
func TestOptional(t *testing.T) {
	apply(t, podMonitors)
	both(t, func(t *testing.T, helm string) {
		manifests := template(t, helm, "metrics.service.enabled=true", "metrics.podMonitor.enabled=true", "metrics.podMonitor.labels.release=prometheus",
			"metrics.dashboard.enabled=true", "resourceQuota.enabled=true", "startupTaint.enabled=true", "startupTaint.key=example.com/wait", "cni.mode=aux",
			"cni.runtimeVersion=containerd://2.1.4", "agent.listenAddress=127.0.0.1", "agent.port=19999", "image.registry=registry.example.com/mesh/",
			"image.tag=v2", "imagePullSecrets[0].name=regcred", "nodeSelector.disk=ssd", "agent.extraArgs={--patrol=1s}")
		taken(t, strings.ReplaceAll(manifests, "registry.example.com/mesh/", "r/"))
		agent := daemonSet(t, manifests)
		for _, flag := range []string{"--startup-taint=example.com/wait", "--aux-dir=/var/run/multus/cni/net.d/vendor-cni-chain", "--runtime-version=containerd://2.1.4",
			"--listen=127.0.0.1:19999", "--patrol=1s"} {
			if !slices.Contains(agent.Args, flag) {
				t.Errorf("no %s in %q", flag, agent.Args)
			}
		}
		if agent.Image != "registry.example.com/mesh/istio-pod-network-agent:v2" || agent.ReadinessProbe.HTTPGet.Host != "127.0.0.1" {
			t.Errorf("%s %+v", agent.Image, agent.ReadinessProbe.HTTPGet)
		}
		for _, kind := range []string{"Service", "PodMonitor", "ResourceQuota"} {
			if !strings.Contains(manifests, "kind: "+kind+"\n") {
				t.Errorf("no %s", kind)
			}
		}
	})
	if plain := template(t, "helm4"); strings.Contains(plain, "PodMonitor") || strings.Contains(plain, "kind: Service\n") || strings.Contains(plain, "startup-taint") {
		t.Errorf("not asked for:\n%s", plain)
	}
}

const podMonitors = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: podmonitors.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  names: {kind: PodMonitor, plural: podmonitors}
  scope: Namespaced
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
`

// Hooks and tests belong to Helm, the namespace to those who apply manifests; both can be asked for.
func TestWhoRenders(t *testing.T) {
	both(t, func(t *testing.T, helm string) {
		dryRun := func(values ...string) string {
			out, errs, err := program(nil, helm, append([]string{"install", name, dir(), "-n", "mesh-" + helm, "--create-namespace", "--dry-run=server"}, set(values)...)...)
			if err != nil {
				t.Fatalf("%v %s", err, errs)
			}
			return out
		}
		for _, c := range []struct {
			what             string
			manifests        string
			namespace, hooks bool
		}{
			{"a client-side render", template(t, helm), true, false},
			{"an installation", dryRun(), false, true},
			{"an installation that is to bring the namespace", dryRun("namespace.create=true"), true, true},
			{"an installation without hooks", dryRun("hooks=false"), false, false},
			{"a client-side render without the namespace", template(t, helm, "namespace.create=false"), false, false},
			{"a client-side render with hooks", template(t, helm, "hooks=true"), true, true},
		} {
			pod := strings.Contains(c.manifests, "pod-security.kubernetes.io/enforce: privileged")
			if hooks := strings.Contains(c.manifests, "helm.sh/hook: pre-delete") && strings.Contains(c.manifests, "helm.sh/hook: test"); hooks != c.hooks || pod != c.namespace {
				t.Errorf("%s: namespace %v, hooks %v", c.what, pod, hooks)
			}
		}
	})
}

// The hook and the test's pod are admitted where Pod Security restricted is enforced, but that the hook uses the node's network.
func TestHooksAreRestricted(t *testing.T) {
	manifests := template(t, "helm4", "hooks=true")
	apply(t, "apiVersion: v1\nkind: Namespace\nmetadata: {name: istio-pod-network-test, labels: {pod-security.kubernetes.io/enforce: restricted}}\n")
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
	uninstall.Spec.Containers[0].SecurityContext.Capabilities.Drop = nil // a control: the namespace refuses
	data, _ := yaml.Marshal(uninstall)
	if _, _, err := program([]byte("apiVersion: v1\nkind: Pod\n"+string(data)), "kubectl", "create", "-n", "istio-pod-network-test", "--dry-run=server", "-f", "-"); err == nil {
		t.Error("a pod that keeps its capabilities was admitted")
	}
}

// The command of the article of 2018, on an empty cluster.
func TestArticle(t *testing.T) {
	for _, distribution := range []string{"Kubernetes", "OpenShift"} {
		both(t, func(t *testing.T, helm string) {
			manifests, errs, err := program(nil, helm, "template", "-n", system, "--set", "kubernetesDistribution="+distribution, dir())
			if err != nil {
				t.Fatal(errs)
			}
			applied(t, manifests)
		})
	}
}

// There is one installation in a cluster, whatever it is called.
func TestReleaseName(t *testing.T) {
	render := func(release string) string {
		out, errs, err := program(nil, "helm4", "template", release, dir(), "-n", system, "--set=hooks=true")
		if err != nil {
			t.Fatal(errs)
		}
		return out
	}
	if a, b := render("one"), render("another"); a != b {
		t.Errorf("the release's name matters:\n%s\n%s", a, b)
	}
}

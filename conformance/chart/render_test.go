package chart

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// The chart has nothing that either Helm warns about.
func TestLint(t *testing.T) {
	both(t, func(t *testing.T, helm string) {
		if out, errs, err := program(nil, helm, "lint", "--strict", dir()); err != nil || strings.Contains(out, "[WARNING]") {
			t.Errorf("%v %s %s", err, out, errs)
		}
	})
}

// What is packaged renders as the directory does.
func TestPackage(t *testing.T) {
	both(t, func(t *testing.T, helm string) {
		to := t.TempDir()
		if out, errs, err := program(nil, helm, "package", dir(), "-d", to); err != nil {
			t.Fatalf("%v %s %s", err, out, errs)
		}
		packages, err := filepath.Glob(filepath.Join(to, name+"-*.tgz"))
		if err != nil || len(packages) != 1 {
			t.Fatalf("packages: %v %v", packages, err)
		}
		out, errs, err := program(nil, helm, "template", "-n", system, packages[0])
		if err != nil || out != template(t, helm) {
			t.Errorf("the package renders something else: %v %s", err, errs)
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
	{"K3d", "/var/lib/rancher/k3s/data/cni", "/var/lib/rancher/k3s/agent/etc/cni/net.d", "chain", false, ""},
	{"RKE2", "/opt/cni/bin", "/etc/cni/net.d", "chain", false, ""},
	{"MicroK8s", "/var/snap/microk8s/current/opt/cni/bin", "/var/snap/microk8s/current/args/cni-network", "chain", false,
		""},
	{"Minikube", "/opt/cni/bin", "/etc/cni/net.d", "chain", false, ""},
	{"Kind", "/opt/cni/bin", "/etc/cni/net.d", "chain", false, ""},
	{"Talos", "/opt/cni/bin", "/etc/cni/net.d", "chain", false, ""},
}

// Every distribution's directories are those of the table, in the flags and on the node alike, and the API server takes
// all of it.
func TestPresets(t *testing.T) {
	var known map[string]any
	read(t, filepath.Join(dir(), "files", "presets.yaml"), &known)
	if len(known) != len(presets) {
		t.Errorf("the chart knows %d distributions, this test %d", len(known), len(presets))
	}
	var schema struct {
		Properties map[string]struct{ Examples []string }
	}
	read(t, filepath.Join(dir(), "values.schema.json"), &schema)
	for _, file := range []string{"values.yaml", "README.md"} {
		text := readText(t, filepath.Join(dir(), file))
		for _, p := range presets {
			if !strings.Contains(text, p.name) || !slices.Contains(schema.Properties["kubernetesDistribution"].Examples,
				p.name) {
				t.Errorf("%s is not in %s, or not in the schema", p.name, file)
			}
		}
	}
	both(t, func(t *testing.T, helm string) {
		for _, p := range presets {
			manifests := template(t, helm, "kubernetesDistribution="+p.name)
			taken(t, manifests)
			if lower := template(t, helm, "kubernetesDistribution="+strings.ToLower(p.name)); lower != manifests {
				t.Errorf("%s in small letters renders something else", p.name)
			}
			agent := daemonSet(t, manifests)
			for _, flag := range []string{"--bin-dir=" + p.bin, "--conf-dir=" + p.conf, "--mode=" + p.mode} {
				if !slices.Contains(agent.Args, flag) {
					t.Errorf("%s: no %s in %q", p.name, flag, agent.Args)
				}
			}
			for _, path := range []string{p.bin, p.conf, "/run/istio-pod-network"} {
				path, _, _ = strings.Cut(path, "/current/") // a link, which is seen where what holds it is mounted
				if !strings.Contains(manifests, `hostPath: {path: "`+path+`"`) ||
					!strings.Contains(manifests, `mountPath: "`+path+`"`) {
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

// A directory behind a link `current` is mounted by what holds the link, once for both, and all others as they are.
func TestMountOfLinks(t *testing.T) {
	mounts := func(values ...string) (paths []string) {
		for _, m := range daemonSet(t, template(t, "helm4", values...)).VolumeMounts {
			if strings.HasPrefix(m.Name, "cni-") && m.Name != "cni-results" {
				paths = append(paths, m.Name+" "+m.MountPath)
			}
		}
		return paths
	}
	if got := mounts("kubernetesDistribution=MicroK8s"); !slices.Equal(got, []string{"cni-bin /var/snap/microk8s"}) {
		t.Errorf("MicroK8s: %q", got)
	}
	got := mounts("kubernetesDistribution=K3s", "cni.binDir=/var/lib/rancher/k3s/data/current/bin")
	if !slices.Equal(got, []string{"cni-bin /var/lib/rancher/k3s/data",
		"cni-conf /var/lib/rancher/k3s/agent/etc/cni/net.d"}) {
		t.Errorf("K3s before October 2024: %q", got)
	}
	if got := mounts("cni.binDir=/opt/currently/bin"); !slices.Contains(got, "cni-bin /opt/currently/bin") {
		t.Errorf("no link: %q", got)
	}
}

// daemonSet is the container of the agents.
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
	if err := yaml.Unmarshal([]byte(readText(t, path)), into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// readText reads a file.
func readText(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

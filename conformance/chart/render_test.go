package chart

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// Neither Helm warns about the chart.
func TestLint(t *testing.T) {
	both(t, func(t *testing.T, helm string) {
		if out, errs, err := program(nil, helm, "lint", "--strict", dir()); err != nil || strings.Contains(out, "[WARNING]") {
			t.Errorf("%v %s %s", err, out, errs)
		}
	})
}

// The packaged chart renders the same as the directory.
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

// presets are the distributions with their CNI directories.
var presets = []struct {
	name, bin, conf, mode string
	quota                 bool
	seLinux               string
	repair                string // with auto; "" is apply
}{
	{name: "Kubernetes", bin: "/opt/cni/bin", conf: "/etc/cni/net.d", mode: "chain"},
	{name: "Kubeadm", bin: "/opt/cni/bin", conf: "/etc/cni/net.d", mode: "chain"},
	{name: "OpenShift", bin: "/var/lib/cni/bin", conf: "/etc/cni/multus/net.d", mode: "nad", seLinux: "spc_t"},
	{name: "GKE", bin: "/home/kubernetes/bin", conf: "/etc/cni/net.d", mode: "chain", quota: true},
	{name: "EKS", bin: "/opt/cni/bin", conf: "/etc/cni/net.d", mode: "chain"},
	{name: "AKS", bin: "/opt/cni/bin", conf: "/etc/cni/net.d", mode: "chain"},
	{name: "K3s", bin: "/var/lib/rancher/k3s/data/cni", conf: "/var/lib/rancher/k3s/agent/etc/cni/net.d", mode: "chain"},
	{name: "K3d", bin: "/var/lib/rancher/k3s/data/cni", conf: "/var/lib/rancher/k3s/agent/etc/cni/net.d", mode: "chain",
		repair: "delete"},
	{name: "RKE2", bin: "/opt/cni/bin", conf: "/etc/cni/net.d", mode: "chain"},
	{name: "k0s", bin: "/opt/cni/bin", conf: "/etc/cni/net.d", mode: "chain"},
	{name: "MicroK8s", bin: "/var/snap/microk8s/current/opt/cni/bin",
		conf: "/var/snap/microk8s/current/args/cni-network", mode: "chain"},
	{name: "Minikube", bin: "/opt/cni/bin", conf: "/etc/cni/net.d", mode: "chain"},
	{name: "Kind", bin: "/opt/cni/bin", conf: "/etc/cni/net.d", mode: "chain"},
	{name: "Talos", bin: "/opt/cni/bin", conf: "/etc/cni/net.d", mode: "chain"},
	{name: "Kubespray", bin: "/opt/cni/bin", conf: "/etc/cni/net.d", mode: "chain"},
	{name: "Bottlerocket", bin: "/opt/cni/bin", conf: "/etc/cni/net.d", mode: "chain"},
	{name: "Flatcar", bin: "/opt/cni/bin", conf: "/etc/cni/net.d", mode: "chain"},
	{name: "DockerDesktop", bin: "/opt/cni/bin", conf: "/etc/cni/net.d", mode: "chain", repair: "delete"},
}

// The directories of every distribution are those of the table, in flags and mounts, and the API server accepts
// everything.
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
	for _, file := range []string{"values.yaml", "README.md", "../../docs/install.md"} {
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
			if lower := strings.ToLower(p.name); helm == "helm3" { // Helm 3 renders the same in another order
				taken(t, manifests)
			} else if template(t, helm, "kubernetesDistribution="+lower) != manifests {
				t.Errorf("%s in small letters renders something else", p.name)
			}
			agent := daemonSet(t, manifests)
			repair := cmp.Or(p.repair, "apply")
			for _, flag := range []string{"--bin-dir=" + p.bin, "--conf-dir=" + p.conf, "--mode=" + p.mode,
				"--repair=" + repair} {
				if !slices.Contains(agent.Args, flag) {
					t.Errorf("%s: no %s in %q", p.name, flag, agent.Args)
				}
			}
			for _, path := range []string{p.bin, p.conf, "/run/istio-pod-network"} {
				path, _, _ = strings.Cut(path, "/current/") // a symbolic link, which is visible if its parent is mounted
				if !strings.Contains(manifests, `hostPath: {path: "`+path+`"`) ||
					!strings.Contains(manifests, `mountPath: "`+path+`"`) {
					t.Errorf("%s: %s is not mounted under the same path", p.name, path)
				}
			}
			// If the node's mounts are not shared, the runtime cannot make a container with mount propagation.
			if slave := strings.Contains(manifests, "HostToContainer"); slave != (repair == "apply") {
				t.Errorf("%s: mounts of the host are to come into the container: %v", p.name, slave)
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

// Of a directory behind a link `current`, the link's parent is mounted, once for both directories. Others are mounted
// themselves.
func TestMountOfLinks(t *testing.T) {
	mounts := func(values ...string) (paths []string) {
		for _, m := range daemonSet(t, template(t, "helm4", values...)).VolumeMounts {
			if strings.HasPrefix(m.Name, "cni-") && m.Name != "cni-cache" {
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

// With repair auto, pods that came too early are repaired in the way that the nodes allow, and the notes give the
// reason. repair=apply is always respected. If a distribution has nodes of several kinds, the Node objects decide.
func TestRepairAuto(t *testing.T) {
	node := func(name, osImage, runtime string) {
		apply(t, "apiVersion: v1\nkind: Node\nmetadata: {name: "+name+"}\n")
		status := `{"status": {"nodeInfo": {"osImage": "` + osImage + `", "containerRuntimeVersion": "` + runtime + `"}}}`
		if _, errs, err := program(nil, "kubectl", "patch", "node", name, "--subresource=status", "-p", status); err != nil {
			t.Fatal(errs)
		}
		t.Cleanup(func() {
			if _, errs, err := program(nil, "kubectl", "delete", "node", name); err != nil {
				t.Error(errs)
			}
		})
	}
	says := func(t *testing.T, helm, words string, values ...string) {
		t.Helper()
		out, errs, err := program(nil, helm, append([]string{"install", name, dir(), "-n", "mesh", "--dry-run=server"},
			set(values)...)...)
		if err != nil {
			t.Fatal(errs)
		}
		_, notes, _ := strings.Cut(out, "\nNOTES:\n")
		deletes := strings.HasPrefix(words, "repair is delete, because ")
		if !strings.Contains(notes, "NOTE: "+words) || strings.Contains(out, "--repair=delete\n") != deletes ||
			strings.Contains(out, "name: istio-pod-network-agent-repair\n") != deletes {
			t.Errorf("%s %q: not %q: %s", helm, values, words, notes)
		}
	}
	const k3s, usual = "kubernetesDistribution=K3s", "An agent that stays in CreateContainerError"
	node("debian", "Debian GNU/Linux 13 (trixie)", "containerd://2.2.0")
	says(t, "helm4", usual, k3s)
	says(t, "helm4", "repair is delete, because backend is iptables-legacy", "backend=iptables-legacy")
	says(t, "helm4", "repair is delete, because k3d shares", "kubernetesDistribution=K3d")
	says(t, "helm4", "repair is apply, although k3d shares", "kubernetesDistribution=K3d", "repair=apply")
	node("minikube", "Buildroot 2025.2", "docker://28.5.2")
	both(t, func(t *testing.T, helm string) {
		says(t, helm, "repair is delete, because the runtime of the node minikube is docker://28.5.2, by cri-dockerd",
			"kubernetesDistribution=Minikube")
	})
	says(t, "helm4", usual) // with this distribution no Node objects are read: there may be thousands
	node("zz", "Alpine Linux v3.22", "containerd://2.2.0")
	says(t, "helm4", "repair is delete, because the node zz runs Alpine Linux v3.22", k3s)
	_, errs, err := program(nil, "helm4", "template", dir(), "--set=kubernetesDistribution=K3d,renewRules={shop}")
	if err == nil || !strings.Contains(errs, `repair is "delete", because k3d shares`) {
		t.Errorf("renewRules without apply: %v %s", err, errs)
	}
}

// No agent runs on nodes without a host, whatever else the affinity has, and `helm test` does not run there either.
func TestNodesWithoutHosts(t *testing.T) {
	const theirs = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
	without := map[string]string{"eks.amazonaws.com/compute-type": "fargate", "type": "virtual-kubelet"}
	both(t, func(t *testing.T, helm string) {
		for _, c := range []struct {
			values []string
			want   []string // the keys of each term
		}{
			{nil, []string{"eks.amazonaws.com/compute-type type"}},
			{[]string{"affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution=null"},
				[]string{"eks.amazonaws.com/compute-type type"}},
			{[]string{theirs + "[0].matchExpressions[0].key=zone", theirs + "[0].matchExpressions[0].operator=Exists",
				theirs + "[1].matchFields[0].key=metadata.name", theirs + "[1].matchFields[0].operator=In",
				theirs + "[1].matchFields[0].values={worker}"},
				[]string{"zone eks.amazonaws.com/compute-type type", "eks.amazonaws.com/compute-type type metadata.name"}},
		} {
			manifests := template(t, helm, append(c.values, "hooks=true")...)
			var d appsv1.DaemonSet
			find(t, manifests, "DaemonSet", "istio-pod-network-agent", &d)
			var pod corev1.Pod
			find(t, manifests, "Pod", "mesh-pod", &pod)
			var job batchv1.Job
			find(t, manifests, "Job", "istio-pod-network-uninstall", &job)
			taken(t, template(t, helm, c.values...))
			for what, affinity := range map[string]*corev1.Affinity{"the agent": d.Spec.Template.Spec.Affinity,
				"helm test": pod.Spec.Affinity, "the hook": job.Spec.Template.Spec.Affinity} {
				var terms []string
				for _, term := range affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
					var keys []string
					for _, r := range append(term.MatchExpressions, term.MatchFields...) {
						keys = append(keys, r.Key)
						if value, is := without[r.Key]; is && (r.Operator != corev1.NodeSelectorOpNotIn ||
							!slices.Equal(r.Values, []string{value})) {
							t.Errorf("%s: %+v", what, r)
						}
					}
					terms = append(terms, strings.Join(keys, " "))
				}
				if want := c.want; what != "the hook" && !slices.Equal(terms, want) ||
					what == "the hook" && !slices.Equal(terms, []string{"eks.amazonaws.com/compute-type type"}) {
					t.Errorf("%q: %s: %q, want %q", c.values, what, terms, want)
				}
			}
		}
	})
}

// daemonSet returns the agents' container.
func daemonSet(t testing.TB, manifests string) corev1.Container {
	t.Helper()
	var d appsv1.DaemonSet
	if !find(t, manifests, "DaemonSet", "istio-pod-network-agent", &d) {
		t.Fatalf("no DaemonSet in\n%s", manifests)
	}
	return d.Spec.Template.Spec.Containers[0]
}

// read parses a YAML or JSON file.
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

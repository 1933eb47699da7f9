package shapes

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/internal/await"
	"golang.org/x/sys/unix"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// preset is a distribution of the chart and a node of it. The sources of its shape are in the chart's
// files/presets.yaml.
type preset struct {
	name, what string
	values     []string
	make       func(h *host)
	update     func(h *host) // an update of the distribution while the agent runs
	refused    string        // why the runtime cannot make the agent's container
}

var presets = []preset{
	{name: "Kubernetes", make: usual},
	{name: "Kubeadm", make: usual},
	{name: "RKE2", make: usual},
	{name: "Kind", make: func(h *host) {
		h.plugins(h.binDir, "ptp", "host-local", "portmap=tuning", "loopback")
		h.conf("10-kindnet.conflist", "0.3.1", "kindnet", "host-local", "ptp", "portmap")
	}},
	{name: "AKS", make: func(h *host) {
		h.plugins(h.binDir, "azure-vnet=bridge", "azure-vnet-ipam=host-local", "portmap=tuning")
		h.conf("10-azure.conflist", "0.3.0", "azure", "azure-vnet-ipam", "azure-vnet", "portmap")
		await.Must(h, os.Chmod(h.path("etc/cni/net.d/10-azure.conflist"), 0o600))
	}},
	{name: "GKE", make: func(h *host) {
		h.binDir = "/home/kubernetes/bin"
		h.mount("tmpfs", "home", "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, "mode=755")
		h.mount("tmpfs", "home/kubernetes/bin", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755")
		h.plugins(h.binDir, "ptp", "host-local", "portmap=tuning")
		h.conf("10-gke-ptp.conflist", "0.3.1", "k8s-pod-network", "host-local", "ptp", "portmap")
	}},
	{name: "EKS", make: func(h *host) {
		h.plugins(h.binDir, "aws-cni=bridge", "egress-cni=tuning", "host-local", "portmap=tuning")
		h.conf("10-aws.conflist", "0.4.0", "aws-cni", "host-local", "aws-cni", "egress-cni", "portmap")
	}},
	{name: "K3s", make: func(h *host) { k3s(h, "") }},
	{name: "K3s", what: "before October 2024", values: []string{"cni.binDir=/var/lib/rancher/k3s/data/current/bin"},
		make: func(h *host) {
			k3s(h, "/var/lib/rancher/k3s/data/current/bin")
			h.link("/var/lib/rancher/k3s/data/1f5aa17d", "var/lib/rancher/k3s/data/current")
		}, update: func(h *host) {
			h.plugins("/var/lib/rancher/k3s/data/9d8f9670/bin", "bridge", "host-local", "portmap=tuning")
			h.relink("/var/lib/rancher/k3s/data/9d8f9670", "var/lib/rancher/k3s/data/current")
		}},
	{name: "K3s", what: "on Alpine Linux", refused: `but it is not a shared or slave mount`, make: func(h *host) {
		k3s(h, "")
		h.unshared("run")
	}},
	{name: "K3s", what: "on Alpine Linux, repaired otherwise", values: []string{"repair=delete"}, make: func(h *host) {
		k3s(h, "")
		h.unshared("run")
	}},
	{name: "K3d", what: "before 5.6.1", make: func(h *host) {
		k3d(h)
		h.unshared("run")
		h.unshared("var/run")
	}},
	{name: "K3d", what: "with shared mounts", values: []string{"repair=apply"}, make: k3d},
	{name: "k0s", make: func(h *host) {
		h.plugins(h.binDir, "bridge", "host-local", "portmap=tuning")
		h.conf("10-kuberouter.conflist", "0.3.0", "mynet", "host-local", "bridge", "portmap")
	}},
	{name: "MicroK8s", make: microk8s, update: func(h *host) { // snapd copies a snap's data, then changes the link
		await.Must(h, exec.Command("cp", "-a", h.path("var/snap/microk8s/7449"), h.path("var/snap/microk8s/7450")).Run())
		h.relink("7450", "var/snap/microk8s/current")
		h.conf("10-calico.conflist", "0.3.1", "k8s-pod-network", "calico-ipam", "calico", "portmap")
	}},
	{name: "Minikube", make: func(h *host) {
		h.plugins(h.binDir, "bridge", "host-local", "portmap=tuning", "firewall=tuning")
		h.conf("87-podman-bridge.conflist", "0.4.0", "podman", "host-local", "bridge", "portmap", "firewall")
		h.conf("1-k8s.conflist", "0.4.0", "bridge", "host-local", "bridge", "portmap", "firewall")
	}},
	{name: "Talos", make: func(h *host) {
		h.overlay("opt")
		h.mount("tmpfs", "etc/cni", "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, "mode=755")
		h.apart()
		h.plugins(h.binDir, "flannel=bridge", "host-local", "portmap=tuning")
		h.conf("10-flannel.conflist", "0.3.1", "cbr0", "host-local", "flannel", "portmap")
	}},
	{name: "Kubespray", make: func(h *host) {
		h.plugins(h.binDir, "calico=bridge", "calico-ipam=host-local", "portmap=tuning")
		h.conf("10-calico.conflist", "0.3.1", "cni0", "calico-ipam", "calico", "portmap")
		h.own(997, 0, 0o755, 0, "opt/cni", "etc/cni/net.d")
	}},
	{name: "Bottlerocket", make: func(h *host) {
		h.plugins("/usr/libexec/cni/bin", "aws-cni=bridge", "egress-cni=tuning", "host-local", "portmap=tuning")
		h.overlay("opt/cni")
		h.mount("tmpfs", "etc/cni", "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, "mode=755")
		h.conf("10-aws.conflist", "0.4.0", "aws-cni", "host-local", "aws-cni", "egress-cni", "portmap")
	}},
	{name: "Flatcar", make: func(h *host) {
		h.mount("tmpfs", "usr", "tmpfs", unix.MS_RDONLY, "mode=755")
		usual(h)
	}},
	{name: "DockerDesktop", make: func(h *host) {
		h.plugins(h.binDir, "bridge", "host-local", "portmap=tuning", "loopback")
		h.write("/etc/cni/net.d/99-loopback.conf", `{"cniVersion": "1.0.0", "type": "loopback"}`)
		h.conf("10-default.conflist", "0.4.0", "default", "host-local", "bridge", "portmap")
		h.unshared("run")
	}},
	{name: "OpenShift", make: func(h *host) {
		h.binDir, h.confDir = "/var/lib/cni/bin", "/var/run/multus/cni/net.d"
		h.plugins(h.binDir, "ovn-k8s-cni-overlay=bridge", "host-local")
		h.conf("10-ovn-kubernetes.conf", "0.4.0", "ovn-kubernetes", "host-local", "ovn-k8s-cni-overlay")
		await.Must(h, os.Rename(h.path("run/multus/cni/net.d/10-ovn-kubernetes.conf"),
			h.path("run/multus/cni/net.d/10-ovn-kubernetes.conflist")))
		h.dirs("etc/cni/multus/net.d")
	}},
}

// usual is the most frequent form: a network of a few plugins in the usual directories.
func usual(h *host) {
	h.plugins(h.binDir, "calico=bridge", "calico-ipam=host-local", "portmap=tuning")
	h.conf("10-calico.conflist", "0.3.1", "k8s-pod-network", "calico-ipam", "calico", "portmap")
}

// k3s has the plugins in a directory of its release. A directory that stays has links to them, unless binDir is another
// one.
func k3s(h *host, binDir string) {
	const data = "/var/lib/rancher/k3s/data/"
	h.binDir, h.confDir = data+"cni", "/var/lib/rancher/k3s/agent/etc/cni/net.d"
	h.plugins(data+"1f5aa17d/bin", "bridge", "host-local", "portmap=tuning")
	if binDir != "" {
		h.binDir = binDir
	} else {
		for _, name := range []string{"bridge", "host-local", "portmap"} {
			h.link(data+"1f5aa17d/bin/"+name, h.binDir+"/"+name)
		}
	}
	h.conf("10-flannel.conflist", "1.0.0", "cbr0", "host-local", "bridge", "portmap")
}

// k3d is k3s in a container, with two file systems.
func k3d(h *host) {
	k3s(h, "")
	h.apart()
}

// microk8s has a directory for each release of the snap, to which a link leads. The plugins are links into the snap.
// The usual paths are links, too.
func microk8s(h *host) {
	const data, snap = "/var/snap/microk8s/", "/snap/microk8s/"
	h.dirs(data+"7449/opt/cni/bin", data+"7449/args/cni-network")
	h.link("7449", data+"current")
	h.link("7449", snap+"current")
	h.plugins(snap+"7449/opt/cni/bin", "calico=bridge", "calico-ipam=host-local", "portmap=tuning")
	for _, name := range []string{"calico", "calico-ipam", "portmap"} {
		h.link(snap+"current/opt/cni/bin/"+name, data+"7449/opt/cni/bin/"+name)
	}
	h.link(data+"current/opt/cni/bin", "opt/cni/bin")
	h.link(data+"current/args/cni-network", "etc/cni/net.d")
	h.binDir, h.confDir = data+"current/opt/cni/bin", data+"current/args/cni-network"
	h.conf("10-calico.conflist", "0.3.1", "k8s-pod-network", "calico-ipam", "calico", "portmap")
	h.own(0, 998, 0o770, 0o660, data+"7449/args")
}

// overlay mounts a writable overlay at path, over the directory of the same name in /usr/libexec.
func (h *host) overlay(path string) {
	h.Helper()
	lower := "usr/libexec/" + filepath.Base(path)
	h.dirs(lower, path)
	for _, dir := range []string{"upper", "work"} {
		h.dirs("var/overlay/" + dir)
	}
	h.mount("overlay", path, "overlay", unix.MS_NOSUID|unix.MS_NODEV, "lowerdir="+h.path(lower)+",upperdir="+
		h.path("var/overlay/upper")+",workdir="+h.path("var/overlay/work"))
}

// apart makes /var/run another directory than /run. The runtime's network namespaces are in /var/run.
func (h *host) apart() {
	h.Helper()
	await.Must(h, os.Remove(h.path("var/run")))
	h.mount("tmpfs", "var/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755")
	h.dirs("var/run/netns")
}

// render returns the chart's DaemonSet and the plugin's entry, changed so that the plugin asks no agent.
func render(t *testing.T, values ...string) (agents *appsv1.DaemonSet, entry string) {
	t.Helper()
	args := []string{"template", "-n", "mesh", filepath.Join(build.Root(), "chart", "istio-pod-network-controller")}
	for _, v := range values {
		args = append(args, "--set="+v)
	}
	out, err := exec.Command(filepath.Join(isolated.BinDir(), "helm4"), args...).Output()
	await.Must(t, err)
	agents = &appsv1.DaemonSet{}
	for _, document := range strings.Split(string(out), "\n---\n") {
		switch {
		case strings.Contains(document, "\nkind: DaemonSet\n"):
			await.Must(t, yaml.UnmarshalStrict([]byte(document), agents))
		case strings.Contains(document, "\nkind: ConfigMap\n") &&
			strings.Contains(document, "\n  name: istio-pod-network-config\n"):
			var c corev1.ConfigMap
			await.Must(t, yaml.UnmarshalStrict([]byte(document), &c))
			var keys map[string]any
			await.Must(t, json.Unmarshal([]byte(c.Data["network.json"]), &keys))
			keys["agentSocket"] = ""
			data, err := json.Marshal(keys)
			await.Must(t, err)
			entry = string(data)
		}
	}
	return agents, entry
}

// Every preset of the chart, as rendered, installs on a node of its distribution. If the runtime cannot make the
// agent's container, nothing on the node is changed.
func TestPresets(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(build.Root(), "chart", "istio-pod-network-controller", "files", "presets.yaml"))
	await.Must(t, err)
	var known map[string]any
	await.Must(t, yaml.Unmarshal(data, &known))
	for name := range known {
		if !slices.ContainsFunc(presets, func(p preset) bool { return p.name == name }) {
			t.Errorf("%s has no node here", name)
		}
	}
	for _, p := range presets {
		t.Run(p.name+" "+p.what, func(t *testing.T) {
			h := newHost(t)
			p.make(h)
			h.starts("before", false)
			err := h.deploy(render(t, append(p.values, "kubernetesDistribution="+p.name)...))
			if p.refused != "" || err != nil {
				if err == nil || p.refused == "" || !strings.Contains(err.Error(), p.refused) {
					t.Fatalf("want %q: %v", p.refused, err)
				}
				h.agents = &appsv1.DaemonSet{}
				h.starts("refused", false)
				return
			}
			h.installed()
			h.starts("after", true)
			if p.update != nil {
				p.update(h)
				h.installed() // in the same container
				h.starts("updated", true)
			}
			if status, said := h.install("uninstall"); status != 0 {
				t.Errorf("uninstall ends with %d: %s", status, said)
			}
			h.starts("uninstalled", false)
		})
	}
}

// Package cluster brings up a real Kubernetes node: control plane, kubelet, containerd and runc, in the namespaces of package
// isolated, with no route to anywhere. Its directories are on file systems that go with those namespaces; what lies outside of
// them, control groups and a few settings of the kernel that the kubelet changes, is put back by Host.
package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/apiserver"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Containerd are the programs of a container runtime. They are looked for in PATH, and so is runc.
var Containerd = []string{"containerd", "containerd-shim-runc-v2", "ctr"}

// Programs are what has to be in Node.Bin.
var Programs = append([]string{"kube-controller-manager", "kube-scheduler", "kubelet", "kubectl"}, apiserver.Programs...)

// Name is that of the one node.
const Name = "node"

// Address is the node's own, on a bridge that leads nowhere.
const Address = "10.99.0.1"

// Where the node keeps things.
const (
	socket    = "/run/containerd/containerd.sock"
	BinDir    = "/run/cni/bin"   // the runtime's CNI plugins
	ConfDir   = "/run/cni/net.d" // and configurations
	podCIDR   = "10.244.0.0/24"
	cgroup    = "istio-pod-network-e2e"
	pause     = "e2e.local/pause:1"
	startup   = 2 * time.Minute
	pollEvery = 100 * time.Millisecond
)

// Node is a running cluster of one node.
type Node struct {
	Bin    string // directory of the programs
	Dir    string // directory of its own, where logs and keys go
	Server *apiserver.Server
	Client *kubernetes.Clientset

	processes []*apiserver.Process // in the order in which they were started
}

// Start brings everything up, and waits until the node is ready and pods can be made. The programs of the primary CNI plugin
// have to be in BinDir, its configuration in ConfDir.
func Start(bin, dir string) (*Node, error) {
	n := &Node{Bin: bin, Dir: dir}
	if err := n.start(); err != nil {
		n.Stop()
		return nil, err
	}
	return n, nil
}

func (n *Node) start() (err error) {
	if err := n.network(); err != nil {
		return err
	}
	if err := n.containerd(); err != nil {
		return err
	}
	n.Server, err = apiserver.Start(n.Bin, n.Dir, "--enable-admission-plugins=NodeRestriction",
		"--kubelet-client-certificate="+n.path("admin.crt"), "--kubelet-client-key="+n.path("admin.key"),
		"--kubelet-preferred-address-types=InternalIP")
	if err != nil {
		return err
	}
	if n.Client, err = kubernetes.NewForConfig(n.Server.Admin()); err != nil {
		return err
	}
	if err := n.controllers(); err != nil {
		return err
	}
	if err := n.Kubelet(); err != nil {
		return err
	}
	return n.ready()
}

func (n *Node) path(name string) string { return filepath.Join(n.Dir, name) }

// network gives the node an address, and a default route that leads nowhere, without which nothing can reach a service.
func (n *Node) network() error {
	for _, command := range []string{
		"ip link add node0 type bridge", "ip addr add " + Address + "/24 dev node0", "ip link set node0 up", "ip route add default dev node0",
		"sysctl -qw net.ipv4.ip_forward=1",
	} {
		if err := run(strings.Fields(command)...); err != nil {
			return err
		}
	}
	return nil
}

// containerd starts the runtime, with the pause image in it.
func (n *Node) containerd() error {
	for _, dir := range []string{BinDir, ConfDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	config := fmt.Sprintf(`version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = %q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  disable_apparmor = true
  restrict_oom_score_adj = true # where root lacks CAP_SYS_RESOURCE, runc could not lower it
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %q
    conf_dir = %q
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
`, socket, pause, BinDir, ConfDir)
	if err := os.WriteFile(n.path("containerd.toml"), []byte(config), 0o644); err != nil {
		return err
	}
	if err := n.run("containerd", "containerd", "--config="+n.path("containerd.toml")); err != nil {
		return err
	}
	if err := wait("containerd answers", func() bool { return run("ctr", "--address="+socket, "version") == nil }); err != nil {
		return err
	}
	return n.Import(pause, filepath.Join(n.Bin, "podprogram"), "pause")
}

// Import makes an image of a static program and gives it to the runtime.
func (n *Node) Import(name, program string, args ...string) error {
	archive := n.path("image.tar")
	if err := Image(archive, name, program, args...); err != nil {
		return err
	}
	defer os.Remove(archive)
	return run("ctr", "--address="+socket, "--namespace=k8s.io", "images", "import", archive)
}

// controllers starts the controller manager and the scheduler.
func (n *Node) controllers() error {
	for name, flags := range map[string][]string{
		"kube-controller-manager": {"--service-account-private-key-file=" + n.Server.ServiceAccountKey(), "--root-ca-file=" + n.Server.CA(),
			"--use-service-account-credentials", "--controllers=*,-node-ipam-controller"},
		"kube-scheduler": nil,
	} {
		config := n.path(name + ".kubeconfig")
		if err := n.Server.KubeconfigOf(config, "system:"+name, "system:masters"); err != nil {
			return err
		}
		flags = append(flags, "--kubeconfig="+config, "--authentication-kubeconfig="+config, "--authorization-kubeconfig="+config, "--leader-elect=false")
		if err := n.run(name, filepath.Join(n.Bin, name), flags...); err != nil {
			return err
		}
	}
	return nil
}

// Kubelet starts the kubelet, as the user of this node.
func (n *Node) Kubelet() error {
	config := n.path("kubelet.kubeconfig")
	if err := n.Server.KubeconfigOf(config, "system:node:"+Name, "system:nodes"); err != nil {
		return err
	}
	settings := fmt.Sprintf(`apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: %q}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
cgroupRoot: /%s
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix://%s
imageServiceEndpoint: unix://%s
podLogsDir: /run/podlogs
makeIPTablesUtilChains: false
localStorageCapacityIsolation: false
enforceNodeAllocatable: []
evictionHard: {memory.available: 100Mi, nodefs.available: 1%%, imagefs.available: 1%%}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
resolvConf: %q
`, n.Server.CA(), cgroup, socket, socket, n.path("resolv.conf"))
	for name, contents := range map[string]string{"kubelet.yaml": settings, "resolv.conf": "nameserver 10.96.0.10\n"} {
		if err := os.WriteFile(n.path(name), []byte(contents), 0o644); err != nil {
			return err
		}
	}
	return n.run("kubelet", filepath.Join(n.Bin, "kubelet"), "--config="+n.path("kubelet.yaml"), "--kubeconfig="+config,
		"--root-dir=/var/lib/kubelet", "--hostname-override="+Name, "--node-ip="+Address, "--cert-dir="+n.path("kubelet-pki"))
}

// ready waits until the node says so and pods have a service account.
func (n *Node) ready() error {
	ctx := context.Background()
	err := wait("the node is ready", func() bool {
		node, err := n.Client.CoreV1().Nodes().Get(ctx, Name, metav1.GetOptions{})
		if err != nil {
			return false
		}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady {
				return c.Status == corev1.ConditionTrue
			}
		}
		return false
	})
	if err == nil {
		err = wait("the default service account exists", func() bool {
			_, err := n.Client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
			return err == nil
		})
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, n.Logs())
	}
	return nil
}

// run starts a program of the node, with a log.
func (n *Node) run(name, program string, args ...string) error {
	p, err := apiserver.Run(n.path(name+".log"), program, args...)
	if err == nil {
		n.processes = append(n.processes, p)
	}
	return err
}

// Logs is the end of every log.
func (n *Node) Logs() string {
	var all strings.Builder
	logs, _ := filepath.Glob(n.path("*.log"))
	for _, path := range logs {
		data, _ := os.ReadFile(path)
		if filepath.Base(path) != "audit.log" {
			fmt.Fprintf(&all, "== %s\n%s\n", filepath.Base(path), data[max(0, len(data)-3000):])
		}
	}
	return all.String()
}

// Stop ends every program, the last one first. What is left in pods ends with the process namespace.
func (n *Node) Stop() {
	for i := len(n.processes) - 1; i >= 0; i-- {
		n.processes[i].Kill()
	}
	if n.Server != nil {
		n.Server.Stop()
	}
}

func run(command ...string) error {
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, out)
	}
	return nil
}

func wait(what string, holds func() bool) error {
	for deadline := time.Now().Add(startup); !holds(); time.Sleep(pollEvery) {
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %s", startup, what)
		}
	}
	return nil
}

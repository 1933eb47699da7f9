// Package cluster starts a real Kubernetes cluster: the control plane, and nodes with kubelet, kube-proxy, containerd
// and runc. Every node has its own mount and network namespace, inside those of package isolated, without a route to
// the outside. The nodes' directories are on file systems that end with these namespaces. Control groups, and a few
// kernel settings that the kubelet changes, are outside of them: Main restores those.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/apiserver"
	"github.com/istio-pod-network/controller/conformance/internal/build"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// containerd are the programs of the current containerd and runc, multus those of an OpenShift node.
var (
	containerd = []string{"containerd", "containerd-shim-runc-v2", "ctr", "runc"}
	multus     = []string{"multus", "multus-daemon", "multus-shim", "passthru"}
)

// control are the programs of the control plane and of every node.
var control = append([]string{"kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"},
	apiserver.Programs...)

// Build puts all programs that a cluster needs into bin, the later Cluster.Bin.
func Build(bin string) error {
	if err := build.Link(bin, slices.Concat(control, containerd, multus)...); err != nil {
		return err
	}
	if err := build.Tools(bin); err != nil {
		return err
	}
	return build.Conformance(bin, "./podprogram", "./foreign-rules")
}

// Address and Address6 are the addresses of the control plane, and of servers that tests run outside the nodes.
const (
	Address  = "10.99.0.100"
	Address6 = "fd00:99::100"
)

// MostNodePods is how many pods of a test fit on a node. A node's subnet has 253 addresses.
const MostNodePods = 250

// everyNodes is how many more pods the kubelet admits: those that run on every node, such as the agent.
const everyNodes = 3

const (
	services    = "10.96.0.0/16,fd00:96::/112"
	startup     = 5 * time.Minute
	pollEvery   = 100 * time.Millisecond
	lan         = "lan" // the bridge between the nodes and the control plane
	gateAddress = Address + ":6444"
)

// Cluster is a running cluster.
type Cluster struct {
	Bin    string // directory of the programs
	Dir    string // directory for logs and keys, not shared with other clusters; nodes see it
	Server *apiserver.Server
	Gate   *apiserver.Gate // host-network pods, such as the agent, reach the API server through it
	Client *kubernetes.Clientset
	Nodes  []*Node

	added     []*Node
	processes []*apiserver.Process // in start order
}

// Start starts the control plane and one node per runtime, and waits until the nodes are ready and pods can be created.
// A node is named after its runtime. The caller must call Stop, also after an error.
func Start(bin, dir string, runtimes ...Runtime) (*Cluster, error) {
	c := &Cluster{Bin: bin, Dir: dir}
	return c, c.start(runtimes)
}

func (c *Cluster) start(runtimes []Runtime) (err error) {
	for _, command := range []string{
		"ip link add lan type bridge", "ip addr add " + Address + "/24 dev lan",
		"ip -6 addr add " + Address6 + "/64 dev lan nodad",
		"ip link set lan up", "sysctl -qw net.ipv4.ip_forward=1", "sysctl -qw net.ipv6.conf.all.forwarding=1",
	} {
		if err := run(strings.Fields(command)...); err != nil {
			return err
		}
	}
	c.Server = &apiserver.Server{Bin: c.Bin, Dir: c.Dir, Host: Address, Flags: []string{
		"--bind-address=0.0.0.0", "--advertise-address=" + Address, "--endpoint-reconciler-type=lease",
		"--service-cluster-ip-range=" + services,
		"--enable-aggregator-routing", // without kube-proxy here, calls of webhooks need the pods' addresses
		"--enable-admission-plugins=NodeRestriction", "--kubelet-client-certificate=" + c.path("admin.crt"),
		"--kubelet-client-key=" + c.path("admin.key"), "--kubelet-preferred-address-types=InternalIP",
	}}
	if err := c.Server.Start(); err != nil {
		return err
	}
	if err := c.Server.KubeconfigOf(c.Admin(), "admin", "system:masters"); err != nil {
		return err
	}
	if c.Client, err = kubernetes.NewForConfig(c.Server.Admin()); err != nil {
		return err
	}
	if c.Gate, err = c.Server.NewGate(gateAddress); err != nil {
		return err
	}
	if err := errors.Join(c.dns(), c.controllers()); err != nil {
		return err
	}
	for _, r := range runtimes {
		n, err := c.add(r)
		c.Nodes = append(c.Nodes, n)
		if err != nil {
			return err
		}
	}
	return c.ready()
}

// add starts a node.
func (c *Cluster) add(r Runtime) (*Node, error) {
	n := &Node{Name: r.node(), Number: len(c.added) + 1, Runtime: r, cluster: c}
	c.added = append(c.added, n)
	if err := n.start(); err != nil {
		return n, fmt.Errorf("node %s: %w", n.Name, err)
	}
	return n, nil
}

// Add starts another node and waits until it is ready. The node is not in Nodes. The caller must call Remove, also
// after an error.
func (c *Cluster) Add(r Runtime) (*Node, error) {
	n, err := c.add(r)
	if err != nil {
		return n, err
	}
	return n, wait("node "+n.Name+" is ready", func() bool { return n.Ready(context.Background()) })
}

// Remove removes a node that Add started, with everything that runs on it.
func (c *Cluster) Remove(n *Node) error {
	n.halt()
	err := wait("no process of "+n.Name+" is left", func() bool { return n.killed() == 0 })
	err = errors.Join(err, wait("its control groups are removed", n.removePodGroups))
	n.stop() // the node's veth pair is deleted with its namespace
	err = errors.Join(err, c.removeMultusAccount())
	failed := c.Client.CoreV1().Nodes().Delete(context.Background(), n.Name, metav1.DeleteOptions{})
	if !apierrors.IsNotFound(failed) {
		err = errors.Join(err, failed)
	}
	return err
}

// Admin returns the path of a kubeconfig with all rights.
func (c *Cluster) Admin() string { return c.path("admin.kubeconfig") }

func (c *Cluster) path(name string) string { return filepath.Join(c.Dir, name) }

// Node returns the node with that name, or nil.
func (c *Cluster) Node(name string) *Node {
	for _, n := range c.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// controllers starts the controller manager and the scheduler.
func (c *Cluster) controllers() error {
	for name, flags := range map[string][]string{
		"kube-controller-manager": {"--service-account-private-key-file=" + c.Server.ServiceAccountKey(),
			"--root-ca-file=" + c.Server.CA(),
			"--use-service-account-credentials", "--controllers=*,-node-ipam-controller", "--node-monitor-grace-period=20s"},
		"kube-scheduler": nil,
	} {
		config := c.path(name + ".kubeconfig")
		if err := c.Server.KubeconfigOf(config, "system:"+name, "system:masters"); err != nil {
			return err
		}
		flags = append(flags, "--kubeconfig="+config, "--authentication-kubeconfig="+config,
			"--authorization-kubeconfig="+config, "--leader-elect=false")
		p, err := apiserver.Run(c.path(name+".log"), filepath.Join(c.Bin, name), flags...)
		if err != nil {
			return err
		}
		c.processes = append(c.processes, p)
	}
	return nil
}

// ready waits until the nodes are ready and the default service account, which pods need, exists.
func (c *Cluster) ready() error {
	ctx := context.Background()
	for _, n := range c.Nodes {
		if err := wait("node "+n.Name+" is ready", func() bool { return n.Ready(ctx) }); err != nil {
			return err
		}
	}
	return wait("the default service account exists", func() bool {
		_, err := c.Client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		return err == nil
	})
}

// Ready reports whether the node's condition Ready is true.
func (n *Node) Ready(ctx context.Context) bool {
	node, err := n.cluster.Client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
	if err != nil {
		return false
	}
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// Logs returns the paths of the programs' log files.
func (c *Cluster) Logs() []string {
	logs, _ := filepath.Glob(c.path("*.log"))
	return logs
}

// Stop ends the nodes' and the control plane's programs. Processes in pods end with the process namespace.
func (c *Cluster) Stop() {
	for _, n := range c.added {
		n.stop()
	}
	for i := len(c.processes) - 1; i >= 0; i-- {
		c.processes[i].Kill()
	}
	if c.Server != nil {
		c.Server.Stop()
	}
}

func run(command ...string) error { return do(exec.Command(command[0], command[1:]...)) }

// do runs a command. The error has the command's output.
func do(command *exec.Cmd) error {
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(command.Args, " "), err, out)
	}
	return nil
}

// output runs a command and returns its standard output. The error has the command and its standard error.
func output(command *exec.Cmd) ([]byte, error) {
	out, err := command.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%s: %w: %s", strings.Join(command.Args, " "), err, exit.Stderr)
	}
	return out, err
}

func wait(what string, holds func() bool) error {
	for deadline := time.Now().Add(startup); !holds(); time.Sleep(pollEvery) {
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %s", startup, what)
		}
	}
	return nil
}

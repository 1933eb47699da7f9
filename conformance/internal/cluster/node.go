package cluster

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/istio-pod-network/controller/conformance/internal/apiserver"
)

// Directories and socket of every node. They are the defaults of most distributions, on file systems that only the node
// sees.
const (
	BinDir    = "/opt/cni/bin"   // CNI plugins
	ConfDir   = "/etc/cni/net.d" // CNI configurations
	StaticDir = "/etc/kubernetes/manifests"
	socket    = "/run/containerd/containerd.sock"
)

// Node is a node of the cluster.
type Node struct {
	Name    string
	Number  int // starts at 1
	Runtime Runtime

	cluster  *Cluster
	holder   *exec.Cmd // process that holds the node's namespaces
	mu       sync.Mutex
	services map[string]*service // by name
	hidden   []string            // paths of the programs that Hide has hidden
	down     bool                // while it is rebooted
}

// namespaces is a shell script that runs in a new mount and network namespace. It mounts file systems over the
// directories that a node writes to, and then sleeps to keep the namespaces. Mounts are shared among the node's
// programs, because the runtime must see what the kubelet mounts.
const namespaces = `set -e
mount --make-rshared /
for dir in /run /var/lib /var/log; do mount -t tmpfs -o mode=0755 tmpfs $dir; done
for dir in etc opt; do
	mkdir -p /run/overlay/$dir/upper /run/overlay/$dir/work
	mount -t overlay -o lowerdir=/$dir,upperdir=/run/overlay/$dir/upper,workdir=/run/overlay/$dir/work overlay /$dir
done
rm -rf /etc/cni /opt/cni /etc/kubernetes
mkdir -p /etc/cni/net.d /opt/cni/bin /etc/kubernetes/manifests
mount -t tmpfs -o mode=0755,size=4m tmpfs /etc/cni/net.d
mount -t tmpfs -o mode=0755,size=32m tmpfs /opt/cni/bin
` + state + `
ip link set lo up
echo ready
exec sleep infinity
`

func (n *Node) start() error {
	primary := n.primary
	if n.Runtime == OpenShift {
		primary = n.openShift
	}
	for _, step := range []func() error{n.namespaces, n.network, n.gate, primary, n.containerd, n.Kubelet, n.proxy} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// namespaces creates the node's namespaces, and waits until they are set up.
func (n *Node) namespaces() error {
	n.holder = exec.Command("unshare", "--mount", "--net", "--propagation", "private", "--", "sh", "-c", namespaces)
	n.holder.Stderr = os.Stderr
	out, err := n.holder.StdoutPipe()
	if err == nil {
		err = n.holder.Start()
	}
	if err != nil {
		return err
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		return fmt.Errorf("making its namespaces: %q %w", line, err)
	}
	return nil
}

// proc returns the path of a file in /proc of the process that holds the node's namespaces.
func (n *Node) proc(name string) string {
	return filepath.Join("/proc", strconv.Itoa(n.holder.Process.Pid), name)
}

// Path returns the path by which this process reaches a file of the node.
func (n *Node) Path(path string) string {
	return filepath.Join(n.proc("root"), path)
}

// Command returns a command that runs in the node's namespaces.
func (n *Node) Command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("nsenter",
		append([]string{"--target=" + strconv.Itoa(n.holder.Process.Pid), "--mount", "--net", "--", name}, args...)...)
	cmd.Env = append(os.Environ(), "PATH="+n.Runtime.path(n.cluster.Bin))
	return cmd
}

// Address returns the node's IPv4 address.
func (n *Node) Address() string { return fmt.Sprintf("10.99.0.%d", n.Number) }

// Address6 returns the node's IPv6 address.
func (n *Node) Address6() string { return fmt.Sprintf("fd00:99::%d", n.Number) }

// Pods4 returns the IPv4 subnet of the node's pods.
func (n *Node) Pods4() string { return fmt.Sprintf("10.244.%d.0/24", n.Number) }

// Pods6 returns the IPv6 subnet of the node's pods.
func (n *Node) Pods6() string { return fmt.Sprintf("fd00:244:0:%d::/64", n.Number) }

// outer returns the name of the control plane's end of the node's veth pair.
func (n *Node) outer() string { return "to-" + strconv.Itoa(n.Number) }

// network connects the node to the control plane, and adds routes to the other nodes' pods. The default route leads
// nowhere, but without one the node cannot reach a service address.
func (n *Node) network() error {
	outer := n.outer()
	commands := []string{
		fmt.Sprintf("ip link add %s type veth peer name eth0 netns %d", outer, n.holder.Process.Pid),
		"ip link set " + outer + " master lan up",
		"ip route add " + n.Pods4() + " via " + n.Address(), "ip -6 route add " + n.Pods6() + " via " + n.Address6(),
	}
	inner := []string{
		"ip addr add " + n.Address() + "/24 dev eth0", "ip -6 addr add " + n.Address6() + "/64 dev eth0 nodad",
		"ip link set eth0 up",
		"ip route add default via " + Address, "ip -6 route add default via " + Address6,
		"sysctl -qw net.ipv4.ip_forward=1", "sysctl -qw net.ipv6.conf.all.forwarding=1",
	}
	if err := run(strings.Fields(commands[0])...); err != nil {
		return err
	}
	for _, command := range inner {
		if err := do(n.Command("sh", "-c", command)); err != nil {
			return err
		}
	}
	for _, command := range commands[1:] { // the bridge port and routes, once the node has its addresses
		if err := run(strings.Fields(command)...); err != nil {
			return err
		}
	}
	return nil
}

// gate redirects connections from the node's network namespace to the API server's service to the cluster's Gate. The
// agent is on the host network, so its connections are among them.
func (n *Node) gate() error {
	return do(n.Command("nft", "add table ip gate; add chain ip gate output { type nat hook output priority -110; }; "+
		"add rule ip gate output ip daddr "+apiserver.ServiceAddress+" tcp dport 443 dnat to "+gateAddress))
}

// Families are the IP families of a node's pods.
type Families struct{ V4, V6 bool }

// DualStack is the default of nodes.
var DualStack = Families{true, true}

// Primary returns the primary CNI's network configuration list, without the entry. more are additional plugins, each a
// JSON object.
func (n *Node) Primary(f Families, more ...string) string {
	var ranges, routes []string
	for _, family := range []struct {
		has           bool
		subnet, route string
	}{{f.V4, n.Pods4(), "0.0.0.0/0"}, {f.V6, n.Pods6(), "::/0"}} {
		if family.has {
			ranges = append(ranges, fmt.Sprintf(`[{"subnet": %q}]`, family.subnet))
			routes = append(routes, fmt.Sprintf(`{"dst": %q}`, family.route))
		}
	}
	plugins := append([]string{fmt.Sprintf(`{
      "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
      "ipam": {"type": "host-local", "ranges": [%s], "routes": [%s]}
    }`, strings.Join(ranges, ", "), strings.Join(routes, ", "))}, more...)
	return fmt.Sprintf(`{
  "cniVersion": %q,
  "name": "podnet",
  "plugins": [
    %s
  ]
}
`, n.Runtime.cniVersion(), strings.Join(plugins, ",\n    "))
}

// Conflist returns the path, for this process, of the primary CNI's configuration file.
func (n *Node) Conflist() string { return n.Path(filepath.Join(ConfDir, "10-podnet.conflist")) }

// primary installs the primary CNI.
func (n *Node) primary() error {
	if err := n.link("bridge", "host-local", "loopback", "tuning", "foreign-rules"); err != nil {
		return err
	}
	return os.WriteFile(n.Conflist(), []byte(n.Primary(DualStack)), 0o644)
}

// link links CNI plugins into the runtime's plugin directory.
func (n *Node) link(plugins ...string) error {
	for _, plugin := range plugins {
		if err := os.Symlink(filepath.Join(n.cluster.Bin, plugin),
			n.Path(filepath.Join(n.Runtime.binDir(), plugin))); err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) stop() {
	n.halt()
	if n.holder != nil && n.holder.Process != nil {
		_ = n.holder.Process.Kill()
		_ = n.holder.Wait()
	}
}

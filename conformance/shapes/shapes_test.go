package shapes

import (
	"cmp"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
	"golang.org/x/sys/unix"
)

// shape is a shape of a node.
type shape struct {
	name string
	make func(n *node)
	not  *refusal // why the node is not ready; nil if it is
	says string   // further text of status and readiness, if the node is ready
}

var shapes = []shape{
	{name: "kubeadm", make: (*node).usual},
	// https://github.com/Azure/azure-container-networking and https://github.com/antrea-io/antrea publish 0.3.0.
	{name: "AKS: Azure CNI of version 0.3.0", make: func(n *node) {
		n.plugins(n.binDir, "azure-vnet=bridge", "azure-vnet-ipam=host-local", "host-local")
		n.conf("10-azure.conflist", n.list("0.3.0", "azure", "azure-vnet", "host-local"))
	}},
	{name: "a .conf of version 0.2.0", make: func(n *node) {
		n.plugins(n.binDir, "bridge", "host-local")
		n.conf("10-net.conf", n.single("0.2.0"))
	}},
	{name: "a list without a version", make: func(n *node) {
		n.plugins(n.binDir, "bridge", "host-local")
		list := n.list("0.1.0", "net", "bridge", "host-local")
		n.conf("10-net.conflist", strings.Replace(list, `"cniVersion": "0.1.0", `, "", 1))
	}},
	{name: "a list that offers a version to come", not: versionToCome, make: func(n *node) {
		n.plugins(n.binDir, "bridge", "host-local")
		n.conf("10-net.conflist", strings.Replace(n.list("1.1.0", "net", "bridge", "host-local"), "{",
			`{"cniVersions": ["1.1.0", "1.2.0"], `, 1))
	}},
	{name: "the runtime looks elsewhere, as with K3d's former directory", not: elsewhere,
		make: func(n *node) {
			n.binDirs = []string{filepath.Join(n.dir, "var/lib/rancher/k3s/data/cni")}
			n.plugins(n.binDirs[0], "bridge", "host-local")
			n.conf("10-flannel.conflist", n.list("1.0.0", "cbr0", "bridge", "host-local"))
		}},
	{name: "the runtime looks in two directories, one not known", says: "host-local", make: func(n *node) {
		other := filepath.Join(n.dir, "usr/lib/cni")
		n.binDirs = append(n.binDirs, other)
		n.plugins(n.binDir, "bridge")
		n.plugins(other, "host-local")
		n.conf("10-net.conflist", n.list("1.0.0", "net", "bridge", "host-local"))
	}},
	{name: "the runtime looks in two directories, as CRI-O", make: func(n *node) {
		other := filepath.Join(n.dir, "usr/libexec/cni")
		n.binDirs = append(n.binDirs, other)
		n.plugins(other, "bridge", "host-local")
		n.conf("10-net.conflist", n.list("1.0.0", "net", "bridge", "host-local"))
		n.flags = []string{"--runtime-bin-dir=" + other, "--runtime-bin-dir=" + filepath.Join(n.dir, "none")}
	}},
	{name: "K3s: plugins are links whose target the container does not see", make: func(n *node) {
		data := filepath.Join(n.dir, "data")
		n.plugins(data, "bridge", "host-local")
		for _, name := range []string{"bridge", "host-local"} {
			await.Must(n, os.Symlink(filepath.Join(data, name), filepath.Join(n.binDir, name)))
		}
		n.conf("10-net.conflist", n.list("1.0.0", "net", "bridge", "host-local"))
		n.hidden = []string{data}
	}},
	{name: "CRI-O: its loopback file sorts first", make: func(n *node) {
		n.plugins(n.binDir, "bridge", "host-local", "loopback")
		n.conf("05-loopback.conflist", `{"cniVersion": "1.0.0", "name": "loopback", "plugins": [{"type": "loopback"}]}`)
		n.conf("10-net.conflist", n.list("1.0.0", "net", "bridge", "host-local"))
		n.network = "net"
	}},
	{name: "CRI-O: cni_default_network is not the first", make: func(n *node) {
		n.plugins(n.binDir, "bridge", "host-local")
		n.conf("10-other.conflist", n.list("1.0.0", "other", "bridge", "host-local"))
		n.conf("20-net.conflist", n.list("1.0.0", "net", "bridge", "host-local"))
		n.network, n.flags = "net", []string{"--primary=net"}
	}},
	{name: "Multus: a delegate by the name of its file, a .conf", make: func(n *node) {
		n.plugins(n.binDir, "bridge", "host-local")
		n.conf("00-multus.conf", `{"cniVersion": "0.3.1", "name": "multus", "type": "multus"}`)
		n.conf("10-net.conf", n.single("0.3.1"))
		n.network, n.flags = "net", []string{"--primary=10-net.conf"}
	}},
	{name: "no network of the name to chain into", not: noneOfThatName, make: func(n *node) {
		n.usual()
		n.flags = []string{"--primary=missing"}
	}},
	{name: "Kubespray: directories and files are the user kube's", make: func(n *node) {
		n.usual()
		n.own(997, 0o755, 0o644)
	}},
	{name: "Kubespray: the same with a drop-in", make: func(n *node) {
		n.usual()
		n.own(997, 0o755, 0o644)
		n.flags = []string{"--drop-in=always"}
	}},
	{name: "MicroK8s: the group may write, nobody else read", make: func(n *node) {
		n.usual()
		n.own(997, 0o770, 0o660)
	}},
	{name: "a .conf of another user's", make: func(n *node) {
		n.plugins(n.binDir, "bridge", "host-local")
		n.conf("10-net.conf", n.single("0.3.1"))
		n.own(997, 0o700, 0o600)
	}},
	{name: "the plugins' directory is mounted noexec", not: mountedNoexec,
		make: func(n *node) {
			n.mount(n.binDir, unix.MS_NOEXEC)
			other := filepath.Join(n.dir, "usr/lib/cni")
			n.plugins(n.binDir, "host-local")
			n.plugins(other, "bridge", "host-local")
			n.binDirs = []string{other, n.binDir}
			n.conf("10-net.conflist", n.list("1.0.0", "net", "bridge", "host-local"))
		}},
	{name: "the plugin is another machine's", not: otherMachine, make: func(n *node) {
		n.usual()
		data, err := os.ReadFile(n.source)
		await.Must(n, err)
		data[18] ^= 0xff // e_machine
		n.source = filepath.Join(n.dir, "plugin")
		await.Must(n, os.WriteFile(n.source, data, 0o755))
	}},
	{name: "CRI-O's: one plugin in a .json", make: func(n *node) {
		n.plugins(n.binDir, "bridge", "host-local")
		n.conf("10-net.json", n.single("0.4.0"))
	}},
	{name: "a list that offers several versions", make: func(n *node) {
		n.plugins(n.binDir, "bridge", "host-local")
		n.conf("10-net.conflist", strings.Replace(n.list("1.1.0", "net", "bridge", "host-local"), "{",
			`{"cniVersions": ["0.3.1", "1.0.0", "1.1.0"], `, 1))
	}},
	{name: "a file that no runtime can read sorts first", make: func(n *node) {
		n.usual()
		n.conf("05-broken.conflist", `{"cniVersion": "1.0.0", "name": "broken", "plugins": [`)
	}},
	{name: "containerd 2.1, which reads drop-ins", says: "drop-in", make: func(n *node) {
		n.usual()
		n.runtimeVersion = "containerd://2.1.4"
	}},
	{name: "containerd 2.1, and a list that forbids them", says: "spliced", make: func(n *node) {
		n.usual()
		n.runtimeVersion = "containerd://2.1.4"
		n.conf("10-net.conflist", strings.Replace(n.list("1.0.0", "net", "bridge", "host-local"), "{",
			`{"loadOnlyInlinedPlugins": true, `, 1))
	}},
	{name: "the configuration is a link", make: func(n *node) {
		n.usual()
		target := n.path("usr/share/cni/10-net.conflist")
		await.Must(n, os.MkdirAll(filepath.Dir(target), 0o755))
		link(n, filepath.Join(n.confDir, "10-net.conflist"), target)
	}},
	{name: "the configuration is a link whose target the container does not see", not: danglingLink, make: func(n *node) {
		n.usual()
		target := n.path("usr/share/cni/10-net.conflist")
		await.Must(n, os.MkdirAll(filepath.Dir(target), 0o755))
		link(n, filepath.Join(n.confDir, "10-net.conflist"), target)
		n.conf("20-next.conflist", n.list("1.0.0", "next", "bridge", "host-local"))
		n.hidden = []string{filepath.Dir(target)}
	}},
	{name: "the plugins' directory is a link", make: func(n *node) {
		n.usual()
		link(n, n.binDir, n.path("usr/libexec/cni"))
	}},
	{name: "the configurations' directory is a link", make: func(n *node) {
		n.usual()
		link(n, n.confDir, n.path("var/lib/net.d"))
	}},
	{name: "Flatcar: the plugins' directory is read-only", not: readOnlyBin, make: func(n *node) {
		n.usual()
		n.readOnly(n.binDir)
	}},
	{name: "the configurations' directory is read-only", not: readOnlyConf, make: func(n *node) {
		n.usual()
		n.readOnly(n.confDir)
	}},
	{name: "the plugins' directory is full", not: fullBin, make: func(n *node) {
		n.usual()
		n.full(n.binDir)
	}},
	{name: "nobody but root may read anything", make: func(n *node) {
		n.usual()
		n.own(0, 0o700, 0o700)
	}},
}

// link moves a file or directory, and leaves a link to it.
func link(n *node, path, to string) {
	n.Helper()
	await.Must(n, os.MkdirAll(filepath.Dir(to), 0o755))
	await.Must(n, os.Rename(path, to))
	await.Must(n, os.Symlink(to, path))
}

// readOnly mounts a directory read-only over itself.
func (n *node) readOnly(dir string) {
	n.Helper()
	await.Must(n, unix.Mount(dir, dir, "", unix.MS_BIND, ""))
	n.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	await.Must(n, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""))
}

// full leaves no space for another program in a directory.
func (n *node) full(dir string) {
	n.Helper()
	programs := n.path("programs")
	await.Must(n, os.Rename(dir, programs))
	n.mount(dir, 0)
	entries, err := os.ReadDir(programs)
	await.Must(n, err)
	for _, e := range entries {
		n.plugins(dir, e.Name())
	}
	var s unix.Statfs_t
	await.Must(n, unix.Statfs(dir, &s))
	used := (s.Blocks - s.Bfree) * uint64(s.Bsize)
	await.Must(n, unix.Mount("", dir, "", unix.MS_REMOUNT, fmt.Sprintf("size=%d", used+1<<20)))
}

// text returns a text of the table with this node's paths.
func (n *node) text(words string) string {
	return strings.NewReplacer("{dir}", n.dir, "{bin}", n.binDir, "{conf}", n.confDir).Replace(words)
}

// TestShapes has each shape twice: with the installer run by hand, and with the agent.
func TestShapes(t *testing.T) {
	for _, s := range shapes {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			t.Run("installer", func(t *testing.T) { t.Parallel(); s.byInstaller(newNode(t)) })
			t.Run("agent", func(t *testing.T) { t.Parallel(); s.byAgent(newNode(t)) })
		})
	}
}

// byInstaller tests the shape without a cluster: before, during and after the installation.
func (s shape) byInstaller(n *node) {
	s.make(n)
	n.starts("before", false)
	n.entry["stateDir"] = n.path("state") // removes the traces of earlier pods
	status, said := n.run("install")
	again, table := n.run("status")
	ready, want := s.not == nil, refusal{}
	if !ready {
		want = *s.not
	}
	if (status == 0) != ready || (again == 0) != ready || !strings.Contains(table, s.says) ||
		missing(table) != n.text(want.status) || !strings.Contains(said, n.text(want.ends)) {
		n.Errorf("want %q and %q; install ends with %d: %s\nstatus with %d: %s", n.text(want.status), s.says, status, said,
			again, table)
	}
	n.owned()
	n.starts("after", ready)
	if status, said := n.run("uninstall"); status != 0 && ready {
		n.Errorf("uninstall ends with %d: %s", status, said)
	}
	n.owned()
	n.starts("uninstalled", false)
}

// missing returns what status says is missing.
func missing(table string) string {
	var all []string
	for line := range strings.Lines(table) {
		if text, is := strings.CutPrefix(line, "missing"); is {
			all = append(all, strings.TrimSpace(text))
		}
	}
	return unique(strings.Join(all, "; "))
}

// numbered matches the names of our temporary files.
var numbered = regexp.MustCompile(`(\.istio-pod-network-(tmp|swap)\.)[0-9a-f.]+`)

// unique replaces texts that differ each time by *.
func unique(text string) string { return numbered.ReplaceAllString(text, "${1}*") }

// byAgent tests the shape with an agent, and after an agent that has removed the plugin.
func (s shape) byAgent(n *node) {
	s.make(n)
	n.join()
	agent := n.agent()
	ready := s.not == nil
	switch {
	case ready:
		n.says(true, "installed", "")
		if _, body := n.ask("/readyz"); !strings.Contains(body, s.says) {
			n.Errorf("want %q: %s", s.says, body)
		}
	case s.not.ends != "":
		if <-agent.done; !strings.Contains(agent.log.String(), n.text(s.not.ends)) {
			n.Errorf("the agent ends without %q", n.text(s.not.ends))
		}
	default:
		n.says(false, "installed", n.text(cmp.Or(s.not.readiness, "not ready: "+s.not.status)))
	}
	n.owned()
	n.starts("with", ready)
	if status, body := n.ask("/healthz"); status != http.StatusOK && (ready || s.not.ends == "") {
		n.Errorf("/healthz: %d %s", status, body)
	}
	agent.end(syscall.SIGTERM)
	agent = n.agent("--uninstall")
	n.says(true, "uninstalled", "")
	agent.end(syscall.SIGTERM)
	n.owned()
	n.starts("without", false)
}

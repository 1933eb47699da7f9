package shapes

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
	"golang.org/x/sys/unix"
)

// shape is one of a node.
type shape struct {
	name string
	make func(n *node)
	not  string // why the node is not ready, in words of the installer; "": it is ready
	says string // more that the installer says
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
	{name: "a list that offers a version to come", not: `"1.2.0"`, make: func(n *node) {
		n.plugins(n.binDir, "bridge", "host-local")
		n.conf("10-net.conflist", strings.Replace(n.list("1.1.0", "net", "bridge", "host-local"), "{",
			`{"cniVersions": ["1.1.0", "1.2.0"], `, 1))
	}},
	{name: "the runtime looks elsewhere, as with K3d's former directory", not: "elsewhere", says: "cni.binDir",
		make: func(n *node) {
			n.binDirs = []string{filepath.Join(n.dir, "var/lib/rancher/k3s/data/cni")}
			n.plugins(n.binDirs[0], "bridge", "host-local")
			n.conf("10-flannel.conflist", n.list("1.0.0", "cbr0", "bridge", "host-local"))
		}},
	{name: "the runtime looks in two directories, one not known", says: "not found   host-local", make: func(n *node) {
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
		n.flags = []string{hide + data}
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
	{name: "no network of the name to chain into", not: `"missing"`, make: func(n *node) {
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
	{name: "the plugins' directory is mounted noexec", not: "mounted noexec", says: "permission denied",
		make: func(n *node) {
			n.mount(n.binDir, unix.MS_NOEXEC)
			other := filepath.Join(n.dir, "usr/lib/cni")
			n.plugins(n.binDir, "host-local")
			n.plugins(other, "bridge", "host-local")
			n.binDirs = []string{other, n.binDir}
			n.conf("10-net.conflist", n.list("1.0.0", "net", "bridge", "host-local"))
		}},
	{name: "the plugin is another machine's", not: "exec format error", says: "architecture", make: func(n *node) {
		n.usual()
		data, err := os.ReadFile(n.source)
		await.Must(n, err)
		data[18] ^= 0xff // e_machine
		n.source = filepath.Join(n.dir, "plugin")
		await.Must(n, os.WriteFile(n.source, data, 0o755))
	}},
}

// hide before a directory, in place of a flag, keeps it from the installer alone.
const hide = "hide:"

func TestShapes(t *testing.T) {
	for _, s := range shapes {
		t.Run(s.name, func(t *testing.T) {
			n := newNode(t)
			s.make(n)
			n.starts("before", false)
			n.entry["stateDir"] = filepath.Join(n.dir, "state") // what came before proves nothing
			hidden := n.hidden()
			status, said := n.run("install")
			again, table := n.run("status")
			for dir := range hidden {
				await.Must(t, os.Rename(dir+".hidden", dir))
			}
			if (status == 0) != (s.not == "") || (again == 0) != (s.not == "") || !strings.Contains(said, s.not) ||
				!strings.Contains(said+table, s.says) {
				t.Errorf("want %q and %q; install ends with %d: %s\nstatus with %d: %s", s.not, s.says, status, said, again, table)
			}
			n.owned()
			n.starts("after", s.not == "")
			if status, said := n.run("uninstall"); status != 0 {
				t.Errorf("uninstall ends with %d: %s", status, said)
			}
			n.owned()
			n.starts("uninstalled", false)
		})
	}
}

// own gives the directories and configurations of the node to another user and group.
func (n *node) own(user int, dirs, files os.FileMode) {
	n.Helper()
	n.owner = user
	for _, root := range []string{n.binDir, n.confDir} {
		await.Must(n, filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
			mode := files
			if e.IsDir() || root == n.binDir {
				mode = dirs
			}
			return errors.Join(err, os.Chown(path, user, user), os.Chmod(path, mode))
		}))
	}
}

// owned fails the test unless the configurations of the node are its owner's.
func (n *node) owned() {
	n.Helper()
	entries, err := os.ReadDir(n.confDir)
	await.Must(n, err)
	for _, e := range entries {
		var s unix.Stat_t
		await.Must(n, unix.Stat(filepath.Join(n.confDir, e.Name()), &s))
		if conf := filepath.Ext(e.Name()); (conf == ".conf" || conf == ".conflist") && int(s.Uid) != n.owner {
			n.Errorf("%s belongs to %d, want %d", e.Name(), s.Uid, n.owner)
		}
	}
}

// hidden takes the directories that the installer's container does not see out of its way.
func (n *node) hidden() map[string]bool {
	n.Helper()
	dirs, flags := map[string]bool{}, []string{}
	for _, flag := range n.flags {
		if dir, is := strings.CutPrefix(flag, hide); is {
			dirs[dir] = true
			await.Must(n, os.Rename(dir, dir+".hidden"))
			continue
		}
		flags = append(flags, flag)
	}
	n.flags = flags
	return dirs
}

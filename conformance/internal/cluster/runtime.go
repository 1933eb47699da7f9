package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Runtime is the container runtime of a node.
type Runtime string

// The runtimes.
const (
	Current Runtime = "current" // current containerd and runc, with drop-ins and user namespaces
	Debian  Runtime = "debian"  // Debian's containerd and runc, without drop-ins and user namespaces

	// like Current, with the directories of OpenShift 4, and Multus in front of the primary CNI
	OpenShift Runtime = "openshift"
)

func (r Runtime) node() string { return "node-" + string(r) }

// path returns PATH for the runtime's programs: they start each other by name.
func (r Runtime) path(bin string) string {
	if r == Debian {
		return os.Getenv("PATH")
	}
	return bin + ":" + os.Getenv("PATH")
}

func (r Runtime) binDir() string {
	if r == OpenShift {
		return OpenShiftBinDir
	}
	return BinDir
}

func (r Runtime) confDir() string {
	if r == OpenShift {
		return OpenShiftConfDir
	}
	return ConfDir
}

// cniVersion returns the newest version of the CNI specification that the runtime, or Multus, supports.
func (r Runtime) cniVersion() string {
	switch r {
	case Current:
		return "1.1.0"
	case OpenShift:
		return "0.3.1"
	}
	return "1.0.0"
}

const pause = "e2e.local/pause:1"

// hostsDir is the directory in which containerd looks up how to reach a registry.
const hostsDir = "/etc/containerd/certs.d"

// program returns the path of a program of the node's runtime.
func (n *Node) program(name string) (string, error) {
	if n.Runtime == Debian {
		return exec.LookPath(name)
	}
	return filepath.Join(n.cluster.Bin, name), nil
}

// containerd starts the runtime, and imports the pause image.
func (n *Node) containerd() error {
	runc, err := n.program("runc")
	if err != nil {
		return err
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
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = %q
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = %q
`, socket, pause, n.Runtime.binDir(), n.Runtime.confDir(), hostsDir, runc)
	file := n.cluster.path(n.Name + "-containerd.toml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return err
	}
	program, err := n.program("containerd")
	if err != nil {
		return err
	}
	if err := n.run(runtimeService, program, "--config="+file); err != nil {
		return err
	}
	if err := n.RuntimeAnswers(); err != nil {
		return err
	}
	archive := n.cluster.path("pause.tar")
	contents := File{Source: filepath.Join(n.cluster.Bin, "podprogram"), Path: "pause"}
	if err := Image(archive, pause, "", []File{contents}, "/pause", "pause"); err != nil {
		return err
	}
	return n.Import(archive)
}

// runtimeService is the name of the runtime in Node.services.
const runtimeService = "containerd"

// RuntimeAnswers waits until the container runtime answers. After a kill it does not answer for some time, while the
// node is still Ready.
func (n *Node) RuntimeAnswers() error {
	return wait("containerd answers on "+n.Name, func() bool { return n.Ctr("version").Run() == nil })
}

// Ctr returns a command that runs ctr, containerd's client, on the node.
func (n *Node) Ctr(args ...string) *exec.Cmd {
	return n.Command("ctr", append([]string{"--address=" + socket, "--namespace=k8s.io"}, args...)...)
}

// Import imports the images of an archive into the runtime.
func (n *Node) Import(archive string) error { return do(n.Ctr("images", "import", archive)) }

// Tag adds another name to an image.
func (n *Node) Tag(name, another string) error {
	return do(n.Ctr("images", "tag", "--force", name, another))
}

// PullableFrom gives this tree's images in the runtime the names that they have in a registry, as if they had been
// pushed there and pulled.
func (n *Node) PullableFrom(registry string) error {
	names, err := n.images()
	if err != nil {
		return err
	}
	for _, name := range names {
		for _, ours := range []string{"istio-pod-network-", "shop:"} {
			if short, is := strings.CutPrefix(name, "docker.io/library/"); is && strings.HasPrefix(short, ours) {
				if err := n.Tag(name, registry+"/"+short); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// PullsFrom makes the runtime pull a registry's images from another address, HOST:PORT, without TLS.
func (n *Node) PullsFrom(registry, address string) error {
	dir := n.Path(filepath.Join(hostsDir, registry))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "hosts.toml"), fmt.Appendf(nil, `server = "http://%[1]s"
[host."http://%[1]s"]
  capabilities = ["pull", "resolve"]
`, address), 0o644)
}

// Forget removes the images of a registry from the runtime.
func (n *Node) Forget(registry string) error {
	names, err := n.images()
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, registry+"/") })
	if len(names) == 0 {
		return nil
	}
	return do(n.Ctr(append([]string{"images", "remove"}, names...)...))
}

// images returns the names of the images in the runtime.
func (n *Node) images() ([]string, error) {
	names, err := output(n.Ctr("images", "list", "--quiet"))
	if err != nil {
		return nil, fmt.Errorf("listing the images of %s: %w", n.Name, err)
	}
	return strings.Fields(string(names)), nil
}

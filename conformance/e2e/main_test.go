package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"text/tabwriter"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
)

// node is the cluster of all tests, and outside what its pods may try to reach.
var (
	node    *cluster.Node
	outside *peer
)

// run brings the cluster up before the tests and takes it down after them.
type run struct{ m *testing.M }

func (r run) Run() int {
	dir, err := os.MkdirTemp("/run", "cluster-")
	if err == nil {
		err = setUp(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bringing up the node:", err)
		return 1
	}
	defer node.Stop()
	code := r.m.Run()
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "\nscenario\toutcome\ttime\tattempts\tleaks")
	for _, s := range scenarios {
		fmt.Fprintln(table, s.row())
	}
	_ = table.Flush()
	if code != 0 {
		fmt.Fprintln(os.Stderr, node.Logs())
	}
	return code
}

func TestMain(m *testing.M) { os.Exit(supervise(m)) }

// supervise is called on the machine, and again on the node.
func supervise(m *testing.M) (code int) {
	if isolated.BinDir() == "" {
		undo, err := cluster.Host()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer func() {
			if err := undo(); err != nil {
				fmt.Fprintln(os.Stderr, "putting back what the node has changed:", err)
				code = 1
			}
		}()
	}
	return isolated.Main(run{m}, prepare)
}

// debian says that Debian's containerd is to be used, not the current one.
func debian() bool { return os.Getenv("E2E_CONTAINERD") == "debian" }

func prepare(bin string) error {
	programs := cluster.Programs
	if !debian() {
		programs = append(programs, cluster.Containerd...)
	}
	if err := build.Link(bin, programs...); err != nil {
		return err
	}
	if err := build.CNI(bin); err != nil {
		return err
	}
	if err := build.Pod(bin); err != nil {
		return err
	}
	return build.Product(bin, "./plugin/wait", "./agent", "./install/istio-pod-network-install")
}

const (
	podImage  = "e2e.local/pod:1"
	waitImage = "e2e.local/wait:1"
)

// primary is the network of the pods, as the node has it before anything of ours.
const primary = `{
  "cniVersion": "1.0.0",
  "name": "podnet",
  "plugins": [
    {
      "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
      "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}
    }
  ]
}
`

func setUp(dir string) error {
	bin := isolated.BinDir()
	for _, path := range []string{cluster.BinDir, cluster.ConfDir} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
	}
	for _, plugin := range []string{"bridge", "host-local", "loopback"} {
		if err := os.Symlink(filepath.Join(bin, plugin), filepath.Join(cluster.BinDir, plugin)); err != nil {
			return err
		}
	}
	if err := os.WriteFile(conflist, []byte(primary), 0o644); err != nil {
		return err
	}
	var err error
	if err := os.Setenv("PATH", bin+":"+os.Getenv("PATH")); err != nil { // where containerd and its shim are, unless they are Debian's
		return err
	}
	if node, err = cluster.Start(bin, dir); err != nil {
		return err
	}
	if outside, err = newPeer(); err == nil {
		err = node.Import(podImage, filepath.Join(bin, "podprogram"))
	}
	if err == nil {
		err = node.Import(waitImage, filepath.Join(bin, "istio-pod-network-wait"))
	}
	if err != nil {
		node.Stop()
	}
	return err
}

var conflist = filepath.Join(cluster.ConfDir, "10-podnet.conflist")

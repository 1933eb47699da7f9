package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/conformance/internal/mesh"
)

// nodes is the cluster of all tests. outside is the peer that the pods try to reach.
var (
	nodes   *cluster.Cluster
	outside *peer
)

// runtimes are the runtimes of the nodes. The plugin is installed by a drop-in on the first, and by a splice on the
// second.
var runtimes = []cluster.Runtime{cluster.Current, cluster.Debian}

// Environment variables that scripts/e2e.sh sets: the directory of the images, with one directory per version; the
// version in the chart, and another one to upgrade to; the directory of the Helms; where to copy the logs of a failed
// run; and the page whose table to update.
const (
	imagesEnv = "E2E_IMAGES"
	versions  = "E2E_VERSIONS"
	helmEnv   = "E2E_HELM"
	logsEnv   = "E2E_LOGS"
	rowsEnv   = "E2E_ROWS"
)

// run starts the cluster before the tests and stops it after them.
type run struct{ m *testing.M }

func (r run) Run() int {
	code := 1
	if err := setUp(); err != nil {
		fmt.Fprintln(os.Stderr, "bringing up the cluster:", err)
	} else {
		code = r.m.Run()
	}
	report(os.Stdout)
	if code != 0 {
		keepLogs()
	}
	if nodes != nil {
		nodes.Stop()
	}
	return code
}

func TestMain(m *testing.M) {
	os.Exit(cluster.Main(run{m}, prepare, append(runtimes, cluster.OpenShift)...))
}

func prepare(bin string) error {
	if err := mesh.Check(); err != nil {
		return err
	}
	if err := cluster.Build(bin); err != nil {
		return err
	}
	if err := build.Istio(bin, "istio-injector", "istio-agent"); err != nil {
		return err
	}
	if err := mesh.Build(bin); err != nil {
		return err
	}
	if err := build.Conformance(bin, "./playground"); err != nil {
		return err
	}
	// scenarios run these outside the cluster
	return build.Product(bin, "./agent/istio-pod-network-agent", "./agent/istio-pod-networkctl")
}

const podImage = "e2e.local/pod:1"

func setUp() error {
	bin := isolated.BinDir()
	dir := filepath.Join(bin, "cluster") // isolated removes bin in the end, and every node sees it
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	var err error
	if nodes, err = cluster.Start(bin, dir, runtimes...); err != nil {
		return err
	}
	if outside, err = newPeer(); err != nil {
		return err
	}
	if err := cluster.Image(podArchive(), podImage, "",
		[]cluster.File{{Source: filepath.Join(bin, "podprogram"), Path: "podprogram"}}, "/podprogram"); err != nil {
		return err
	}
	for _, n := range nodes.Nodes {
		if err := errors.Join(importImages(n), remember(n)); err != nil {
			return err
		}
	}
	return nil
}

func podArchive() string { return filepath.Join(isolated.BinDir(), "cluster", "pod.tar") }

// importImages imports all images into a node.
func importImages(n *cluster.Node) error {
	archives, err := filepath.Glob(filepath.Join(os.Getenv(imagesEnv), "*", "*.tar"))
	if err != nil {
		return err
	}
	if len(archives) == 0 {
		return fmt.Errorf("%s: no images in %q; start the tests with make e2e", imagesEnv, os.Getenv(imagesEnv))
	}
	for _, archive := range append(archives, podArchive()) {
		if err := n.Import(archive); err != nil {
			return err
		}
	}
	return nil
}

// keepLogs copies the programs' logs out of the cluster's directory.
func keepLogs() {
	dir := os.Getenv(logsEnv)
	if dir == "" || nodes == nil {
		return
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	for _, path := range nodes.Logs() {
		data, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, filepath.Base(path)), data, 0o644)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	fmt.Fprintln(os.Stderr, "the logs of all programs are in", dir)
}

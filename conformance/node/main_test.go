package node

import (
	"fmt"
	"os"
	"testing"

	"github.com/istio-pod-network/controller/conformance/crio"
	"github.com/istio-pod-network/controller/conformance/internal/apiserver"
	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
)

// server is the API server of all tests.
var server *apiserver.Server

// run starts the API server before the tests and stops it after them.
type run struct{ m *testing.M }

func (r run) Run() int {
	dir, err := os.MkdirTemp("", "istio-pod-network-node-")
	if err == nil {
		defer os.RemoveAll(dir)
		server, err = apiserver.Start(isolated.BinDir(), dir, apiserver.WithoutControllers)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "starting the API server:", err)
		return 1
	}
	defer server.Stop()
	return r.m.Run()
}

// TestMain runs the test binary as another user's program if TestHostileSocket asks for it.
func TestMain(m *testing.M) {
	if socket := os.Getenv(strangerEnv); socket != "" {
		os.Exit(ask(socket))
	}
	os.Exit(isolated.Main(run{m}, prepare))
}

func prepare(bin string) error {
	if err := build.Link(bin, append([]string{"multus", "passthru"}, apiserver.Programs...)...); err != nil {
		return err
	}
	if err := crio.Build(bin); err != nil {
		return err
	}
	if err := build.CNI(bin); err != nil {
		return err
	}
	return build.Product(bin, "./plugin/istio-pod-network-wait", "./agent/istio-pod-network-agent",
		"./agent/istio-pod-networkctl")
}

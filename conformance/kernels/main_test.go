package kernels

import (
	"os"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
)

func TestMain(m *testing.M) { os.Exit(isolated.Main(m, prepare)) }

func prepare(bin string) error {
	if err := build.CNI(bin); err != nil {
		return err
	}
	return build.Product(bin, "./agent/istio-pod-network-agent", "./agent/istio-pod-networkctl")
}

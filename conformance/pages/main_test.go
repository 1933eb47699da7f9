package pages

import (
	"os"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
)

func TestMain(m *testing.M) { os.Exit(isolated.Main(m, prepare)) }

func prepare(bin string) error {
	if err := build.Link(bin, "kubectl"); err != nil {
		return err
	}
	if err := build.Helm(bin); err != nil {
		return err
	}
	if err := build.IstioCharts(bin); err != nil {
		return err
	}
	if err := build.CNI(bin); err != nil {
		return err
	}
	return build.Product(bin, "./plugin/istio-pod-network-wait",
		"./agent/istio-pod-network-agent", "./agent/istio-pod-networkctl", "./install/istio-pod-network-install")
}

package cni

import (
	"os"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
)

func TestMain(m *testing.M) { os.Exit(isolated.Main(m, prepare)) }

func prepare(bin string) error {
	if err := build.Link(bin, "multus"); err != nil {
		return err
	}
	if err := build.Product(bin, "./install/istio-pod-network-install"); err != nil {
		return err
	}
	return build.CNI(bin)
}

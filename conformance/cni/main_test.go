package cni

import (
	"os"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
)

func TestMain(m *testing.M) { os.Exit(isolated.Main(m, build.CNI)) }

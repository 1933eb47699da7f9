package agent

import (
	"os"
	"testing"

	"github.com/istio-pod-network/controller/internal/fdleak"
)

// What needs the API server, processes or packets is tested in conformance/node.
func TestMain(m *testing.M) { os.Exit(fdleak.Run(m)) }

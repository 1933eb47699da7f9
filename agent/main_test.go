package agent

import (
	"os"
	"testing"

	"github.com/istio-pod-network/controller/internal/fdleak"
)

// conformance/node tests what needs the API server, processes or packets.
func TestMain(m *testing.M) { os.Exit(fdleak.Run(m)) }

// Command istio-pod-network-flows runs in pods that prove an installation: as app, as stand-in of the sidecar, and as
// the peer that both call.
package main

import (
	"os"

	"github.com/istio-pod-network/controller/plugin/flows"
)

func main() { os.Exit(flows.Main()) }

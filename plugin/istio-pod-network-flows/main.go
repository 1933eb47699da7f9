// Command istio-pod-network-flows runs in the pods that prove an installation: as the app, as the stand-in of the
// sidecar, and as the peer that both call.
package main

import (
	"os"

	"github.com/istio-pod-network/controller/plugin/flows"
)

func main() { os.Exit(flows.Main()) }

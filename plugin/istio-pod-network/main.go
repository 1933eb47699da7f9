// Command istio-pod-network is a chained CNI plugin that sends the traffic of Istio mesh pods through their sidecar.
package main

import (
	"os"

	"github.com/istio-pod-network/controller/plugin"
)

func main() { os.Exit(plugin.Main()) }

// Command istio-pod-network-wait is the program of the init container: it succeeds once the packet rules of its pod are
// proven to be there.
package main

import (
	"os"

	"github.com/istio-pod-network/controller/plugin/wait"
)

func main() { os.Exit(wait.Main()) }

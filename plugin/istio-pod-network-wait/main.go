// Command istio-pod-network-wait is the init container's program: it ends with success once the packet rules of its pod
// are proven to be there.
package main

import (
	"os"

	"github.com/istio-pod-network/controller/plugin/wait"
)

func main() { os.Exit(wait.Main()) }

// Command istio-pod-network-look asks the kernel which rules take a packet of a pod; package look is all of it.
package main

import (
	"os"

	"github.com/istio-pod-network/controller/plugin/look"
)

func main() { os.Exit(look.Main()) }

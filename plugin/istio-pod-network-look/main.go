// Command istio-pod-network-look asks the kernel which rules match a packet of a pod. Package look implements it.
package main

import (
	"os"

	"github.com/istio-pod-network/controller/plugin/look"
)

func main() { os.Exit(look.Main()) }

// Command istio-pod-network-agent runs once per node. Package agent has its code.
package main

import (
	"os"

	"github.com/istio-pod-network/controller/agent"
)

func main() { os.Exit(agent.Main()) }

// Command istio-pod-network-agent runs once per node; package agent is all of it.
package main

import (
	"os"

	"github.com/istio-pod-network/controller/agent"
)

func main() { os.Exit(agent.Main()) }

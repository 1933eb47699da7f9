// Command istio-pod-networkctl is the operator's tool; package ctl is all of it.
package main

import (
	"os"

	"github.com/istio-pod-network/controller/agent/ctl"
)

func main() { os.Exit(ctl.Main()) }

// Command agent is what runs in the containers that Istio's injector makes, in place of pilot-agent: `istio-iptables`
// is Istio's own program, with its validation, `proxy` is the stand-in of Envoy, and `wait` waits until that is ready.
package main

import (
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"istio.io/istio/pkg/log"
	"istio.io/istio/tools/istio-iptables/pkg/cmd"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "proxy" {
		args := []string{"podprogram", "sidecar"}
		if os.Getenv("ISTIO_META_INTERCEPTION_MODE") == "TPROXY" {
			args = append(args, "-tproxy")
		}
		err := syscall.Exec("/podprogram", args, os.Environ())
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
	if len(os.Args) > 1 && os.Args[1] == "wait" {
		for {
			c, err := net.Dial("tcp", "127.0.0.1:15021")
			if err == nil {
				_ = c.Close()
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	options := log.DefaultOptions()
	command := cmd.GetCommand(options)
	options.AttachCobraFlags(command)
	if len(os.Args) > 1 && os.Args[1] == "istio-iptables" {
		command.SetArgs(os.Args[2:])
	}
	if err := command.Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(-1)
	}
}

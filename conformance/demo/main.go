// Command demo shows the life of one mesh pod. The real cnitool makes and removes its network, real packets are sent,
// and the demo prints where each one landed and why. scripts/demo.sh (`make demo`) builds what it needs and runs it as
// root, with the plugin directories in CNI_PATH.
//
// It runs in namespaces of its own, so that nothing is left on the machine, however it ends.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/internal/testnet"
)

// options are the flags.
type options struct {
	backend, mode string
	families      []testnet.Family
	dns, noColor  bool
}

func main() {
	opts, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	os.Exit(isolated.Main(opts, func(string) error { return nil }))
}

// Run shows the demo and returns the exit status.
func (opts options) Run() int {
	if err := show(opts); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	return 0
}

func parse(args []string) (options, error) {
	var opts options
	var families string
	flags := flag.NewFlagSet("demo", flag.ExitOnError)
	flags.StringVar(&opts.backend, "backend", "auto", "auto, nftables, iptables, iptables-nft or iptables-legacy")
	flags.StringVar(&opts.mode, "mode", "REDIRECT", "REDIRECT or TPROXY")
	flags.StringVar(&families, "families", "46", "4, 6 or 46")
	flags.BoolVar(&opts.dns, "dns", false, "capture DNS as well")
	flags.BoolVar(&opts.noColor, "no-color", false, "plain text, also on a terminal")
	if err := flags.Parse(args); err != nil {
		return opts, err
	}
	known := map[string][]testnet.Family{"4": {testnet.IPv4}, "6": {testnet.IPv6}, "46": {testnet.IPv4, testnet.IPv6}}
	if opts.families = known[families]; opts.families == nil {
		return opts, fmt.Errorf("--families: invalid value %q; valid: 4, 6 or 46", families)
	}
	return opts, nil
}

// Command echo is the baseline of the benchmark: a CNI plugin that prints the previous result and does nothing else.
// Its cost is that of the protocol itself: a process, a configuration, and a result on stdout.
package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

func main() {
	skel.PluginMainFuncs(skel.CNIFuncs{Add: add, Del: nothing, Check: nothing},
		version.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0"), "echoes prevResult, for benchmarks")
}

// add prints prevResult in the configuration's CNI version.
func add(args *skel.CmdArgs) error {
	var conf types.PluginConf
	if err := json.Unmarshal(args.StdinData, &conf); err != nil {
		return fmt.Errorf("parsing configuration: %w", err)
	}
	if err := version.ParsePrevResult(&conf); err != nil {
		return err
	}
	if conf.PrevResult == nil {
		return errors.New("no prevResult: echo must be chained")
	}
	return types.PrintResult(conf.PrevResult, conf.CNIVersion)
}

func nothing(*skel.CmdArgs) error { return nil }

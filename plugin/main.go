// Package plugin is the chained CNI plugin istio-pod-network. In ADD, while the runtime holds the pod's network
// namespace open, it decides whether the pod belongs to an Istio mesh, and writes the packet rules that send the pod's
// traffic through its sidecar. It prints the previous plugin's result unchanged.
//
// It implements ADD, CHECK, DEL, GC, STATUS and VERSION of the CNI specification 0.1.0 to 1.1.0
// (https://www.cni.dev/docs/spec/).
package plugin

import (
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	cniversion "github.com/containernetworking/cni/pkg/version"
	"github.com/istio-pod-network/controller/internal/program"
	"github.com/istio-pod-network/controller/plugin/facts"
	"github.com/istio-pod-network/controller/plugin/netfilter"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// supported are the versions of the CNI specification that the plugin accepts: all that exist. A runtime passes the
// list's version to every plugin of the chain, and the pod fails at the first plugin that rejects it. Some networks
// still use 0.3.0.
var supported = cniversion.PluginSupports("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")

// plugin holds the connections to the outside (outputs, network namespaces, agent, clock, environment), so that tests
// run the verbs without a process.
type plugin struct {
	stdout, stderr io.Writer
	open           func(path string) (namespace, error)
	ask            asker
	usable         func(netfilter.Backend, redirect.RuleSet) error
	now            func() time.Time
	getenv         func(string) string
}

// Main runs the plugin with the arguments, environment and standard streams of this process, and returns the exit
// status: 0 if the call succeeded, 1 if not, 2 for wrong usage by a person. It prints a CNI error as JSON on standard
// output.
func Main() int {
	// A runtime that forgets CNI_COMMAND still sets CNI_CONTAINERID. A person who has used cnitool may have other CNI_
	// variables set.
	if len(os.Args) > 1 || os.Getenv("CNI_COMMAND")+os.Getenv("CNI_CONTAINERID") == "" {
		return person(program.New("istio-pod-network", help), os.Args[1:])
	}
	p := plugin{
		stdout: os.Stdout, stderr: os.Stderr,
		open: openNamespace, ask: facts.Ask, usable: netfilter.Usable, now: time.Now, getenv: os.Getenv,
	}
	// The plugin itself refuses its own network namespace, before it changes anything. skel checks that only after the
	// verb: its error would follow the result on stdout, and a DEL would fail.
	_ = os.Setenv("CNI_NETNS_OVERRIDE", "1")
	// PluginMainFuncsWithError prints nothing when it returns an error, so the error object is all that is on stdout.
	if err := p.refused(skel.PluginMainFuncsWithError(p.funcs(), supported, ""), p.getenv); err != nil {
		_ = err.Print()
		return program.ExitFailed
	}
	return program.ExitDone
}

// funcs returns the verbs for skel. Each of them turns a panic into a CNI error.
func (p plugin) funcs() skel.CNIFuncs {
	return skel.CNIFuncs{
		Add: p.guard("ADD", p.add), Check: p.guard("CHECK", p.check), Del: p.guard("DEL", p.del),
		GC: p.guard("GC", p.gc), Status: p.guard("STATUS", p.status),
	}
}

// verb does the work of one CNI command. The fields that it sets in the call are logged in one line.
type verb func(*call, *skel.CmdArgs) error

func (p plugin) guard(name string, run verb) func(*skel.CmdArgs) error {
	return func(args *skel.CmdArgs) (err error) {
		c := p.newCall(name, args)
		defer func() {
			if r := recover(); r != nil {
				err = types.NewError(types.ErrInternal, fmt.Sprintf(prefix+"panic in %s: %v", name, r), string(debug.Stack()))
			}
			err = c.finish(err)
		}()
		return run(c, args)
	}
}

const help = `puts the traffic of Istio mesh pods through their sidecar

This is a CNI plugin. A container runtime runs it as the last of a chain, with CNI_COMMAND and the other CNI_
variables in its environment and the network configuration on standard input; it is not meant to be run by hand.

To try it by hand, use cnitool (https://github.com/containernetworking/cni/tree/main/cnitool) with a network
configuration list whose last plugin is

    {"type": "istio-pod-network", "agentSocket": "", "capabilities": {"io.kubernetes.cri.pod-annotations": true}}

and give the pod by CNI_ARGS="K8S_POD_NAMESPACE=demo;K8S_POD_NAME=web" and its annotations by
CAP_ARGS='{"io.kubernetes.cri.pod-annotations": {"sidecar.istio.io/status": "{}"}}'. The README has the whole of it.

Options: --version, --help
Commands: ADD, CHECK, DEL, GC, STATUS, VERSION of CNI 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0 and 1.1.0
`

// person serves somebody who runs the program in a shell, and returns the exit status.
func person(p program.Program, args []string) int {
	switch {
	case len(args) == 0:
		p.WriteHelp(p.Stderr)
	case len(args) > 1 || !p.Answer(args):
		return p.Misused(program.Unexpected(args[len(args)-1], "--version or --help, alone"))
	}
	return program.ExitDone
}

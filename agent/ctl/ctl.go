// Package ctl is the program istio-pod-networkctl, the operator's tool. From a laptop it answers an operator's
// questions about pods and the plugin. Each command is a package below this one, which puts them together.
//
// kubectl finds the program under the name kubectl-istio_pod_network, and asks it for completions under the name
// kubectl_complete-istio_pod_network.
package ctl

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/check"
	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/explain"
	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/agent/ctl/status"
	"github.com/istio-pod-network/controller/agent/ctl/sysdump"
	"github.com/istio-pod-network/controller/agent/ctl/trace"
	"github.com/istio-pod-network/controller/agent/ctl/verify"
	"github.com/istio-pod-network/controller/agent/ctl/version"
	"github.com/istio-pod-network/controller/internal/buildinfo"
	"github.com/spf13/cobra"
)

// Names of the program.
const (
	own          = "istio-pod-networkctl"
	asPlugin     = "kubectl-istio_pod_network"
	asCompletion = "kubectl_complete-istio_pod_network"
	byKubectl    = "kubectl istio-pod-network" // what the user writes with kubectl
)

// process is what the program uses of its process.
type process struct {
	args           []string // with the program's name
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
}

// Main runs the program with the arguments of this process, and returns the exit status.
func Main() int {
	return process{os.Args, os.Stdin, os.Stdout, os.Stderr, os.Getenv}.run()
}

// run runs the program and returns the exit status.
func (p process) run() int {
	name, args := own, p.args[1:]
	switch strings.TrimSuffix(filepath.Base(p.args[0]), ".exe") {
	case asPlugin:
		name = byKubectl
	case asCompletion:
		name, args = byKubectl, append([]string{cobra.ShellCompRequestCmd}, args...)
	}
	root := p.command(name)
	root.SetArgs(args)
	out := &remembering{Writer: p.stdout}
	root.SetOut(out)
	err := root.Execute()
	if out.err != nil { // of help, version or completion: cobra ignores it, or treats it as a wrong command line
		err = outcome.Unasked(out.err)
	}
	status := outcome.StatusOf(err)
	switch status {
	case outcome.Well, outcome.NotWell:
	case outcome.Misused:
		fmt.Fprintf(p.stderr, "%s: %s; see --help\n", name, oneLine(err))
	default:
		fmt.Fprintf(p.stderr, "%s: %s\n", name, oneLine(err))
	}
	return status
}

// remembering is a writer that stores its first error.
type remembering struct {
	io.Writer
	err error
}

func (r *remembering) Write(data []byte) (int, error) {
	n, err := r.Writer.Write(data)
	if r.err == nil {
		r.err = err
	}
	return n, err
}

// oneLine returns an error in one line. cobra adds lines with similar commands.
func oneLine(err error) string {
	text, meant, _ := strings.Cut(err.Error(), "\n\nDid you mean this?\n")
	text = output.Printable(strings.Join(strings.Fields(text), " "))
	if names := strings.Fields(meant); len(names) > 0 {
		text += "; did you mean " + strings.Join(names, " or ") + "?"
	}
	return text
}

const long = `Answers an operator's questions about istio-pod-network: whether a pod's traffic goes through its
sidecar, and why.

Exit status: 0 if everything that was looked at is well, 1 if something is not well, 2 for a wrong
command line or file, 3 if something could not be asked. Output has colours only on a terminal, and
none if NO_COLOR is set.`

const example = `  # Is every node well?
  %[1]s status

  # Why is this pod (not) redirected? Does it have its rules?
  %[1]s explain cart-0 -n shop

  # Does the cluster have everything that is needed?
  %[1]s check`

// command returns the program's root command, under the name that its user writes.
func (p process) command(name string) *cobra.Command {
	root := &cobra.Command{
		Use: own, Short: "Show what istio-pod-network does with pods, and why", Long: long,
		Example: fmt.Sprintf(example, name),
		Version: buildinfo.Version(), SilenceErrors: true, SilenceUsage: true,
		Annotations:       map[string]string{cobra.CommandDisplayNameAnnotation: name},
		PersistentPreRunE: func(c *cobra.Command, _ []string) error { return cluster.CheckFlags(c.Flags()) },
	}
	root.SetIn(p.stdin)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	// The help is as wide as all other output.
	wrapped := fmt.Sprintf("FlagUsagesWrapped %d", output.Width)
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), "Flags.FlagUsages ", "Flags."+wrapped+" "))
	root.SetVersionTemplate("{{.DisplayName}} {{.Version}}\n")
	namespace := root.PersistentFlags().StringP("namespace", "n", "default", "`namespace` of the pods (default: that of "+
		"the kubeconfig's context; with -f: default); for commands about nodes, namespace of the agents (default: the tool "+
		"finds it)")
	root.PersistentFlags().Lookup("namespace").DefValue = "" // it differs between commands
	writer := output.Writer{Out: p.stdout, Colours: output.HasColours(p.stdout, p.getenv), Tool: name}
	reach := cluster.NewFlags(root.PersistentFlags())
	root.AddCommand(
		check.Command(name, reach, writer),
		explain.Command(name, namespace, reach, p.stdin, writer), status.Command(name, reach, writer),
		sysdump.Command(name, namespace, reach, writer), trace.Command(name, namespace, reach, p.stdin, writer),
		verify.Command(name, reach, writer), version.Command(name, reach, writer), completion(reach),
	)
	root.SetHelpCommand(help(name, reach))
	root.SetFlagErrorFunc(unreadable)
	complete(root, reach)
	return root
}

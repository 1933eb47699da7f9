package check

import (
	"context"
	"fmt"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/internal/buildinfo"
	"github.com/spf13/cobra"
)

const long = `Says whether a cluster has what istio-pod-network needs: a list of what is well (✓), what is worth
knowing and may be meant (!), what is not well (✗), and what was not looked at (?). Below each ! and
✗ stands what to do.

It looks at Kubernetes, its nodes and its admission policies, at the Pod Security level of the
agents' namespace, at agents, versions and clocks, at Istio's injection, and at other networks and
meshes. With --pre, before an installation, it needs no agent, and looks at what the API server
shows alone.

It needs the verbs get on namespaces, and on configmaps in the namespaces of the agents, of Istio
and of Cilium; list on nodes, daemonsets, mutatingwebhookconfigurations and deployments; get on
validatingadmissionpolicies and mutatingadmissionpolicies and on their bindings; list on
network-attachment-definitions in mode nad; and what status needs. What it may not look at it names,
with the right that is missing; that counts neither as well nor as ill.

Exit status: 0 if nothing is ill, 1 if something is, 2 for a wrong command line, 3 if nothing could
be looked at.`

const example = `  # Before an installation
  %[1]s check --pre

  # After it, and whenever something is strange
  %[1]s check

  # What is not well, for a program
  %[1]s check -o json | jq '.items[] | select(.verdict == "not well")'`

// options are a command line's.
type options struct {
	namespace string // of the agents, "" for whichever it is
	output    string
	before    bool
}

// Command returns the command. name is the program's.
func Command(name string, flags cluster.Flags, writer output.Writer) *cobra.Command {
	var o options
	c := &cobra.Command{
		Use: "check", Short: "Say whether a cluster has what istio-pod-network needs", Long: long,
		Example: fmt.Sprintf(example, name), Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.namespace = cluster.AgentsNamespace(c.Flags())
			format, err := output.ParseFormat(o.output)
			if err != nil {
				return err
			}
			writer.Format = format
			return flags.Ask(c.Context(), func(ctx context.Context, to *cluster.Cluster) error {
				return o.run(ctx, Source{Source: to, Core: to.Core, Apps: to.Apps, Admission: to.Admission,
					Discovery: to.Discovery, Metadata: to.Metadata}, writer, buildinfo.Version())
			})
		},
	}
	c.Flags().BoolVar(&o.before, "pre", false, "before an installation: look at the cluster alone")
	output.Flag(c, &o.output)
	return c
}

func (o options) run(ctx context.Context, from Source, w output.Writer, tool string) error {
	c, err := Of(ctx, from, o.namespace, o.before, tool)
	if err != nil {
		return outcome.Unasked(err)
	}
	return c.show(w)
}

// show writes it; the error says how the cluster is.
func (c Check) show(w output.Writer) error {
	if err := w.Object(c, c.write); err != nil {
		return outcome.Unasked(err)
	}
	switch {
	case c.Summary.NotWell > 0:
		return outcome.ErrNotWell
	case c.Summary.Well+c.Summary.Warnings == 0:
		return outcome.Unasked(errNothing)
	}
	return nil
}

package version

import (
	"context"
	"errors"
	"fmt"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/agent/ctl/status"
	"github.com/istio-pod-network/controller/internal/buildinfo"
	"github.com/spf13/cobra"
)

const long = `Shows the versions of this tool, and of agent and plugin on each node, and what does not fit: an
agent that is more than one minor version away from this tool or from the newest agent, and a plugin
that does not belong to its agent. It also names the questions that an older agent cannot answer.

It asks the agents, and needs the rights that status needs. If an agent does not answer, it shows
the release that the label of the agent's pod has. With --client it asks nobody.

Exit status: 0 if all versions fit, 1 if one does not fit, 2 for a wrong command line, 3 if a node
could not be asked, or nodes or daemonsets could not be listed.`

const example = `  # Do the agents fit this tool and each other?
  %[1]s version

  # Only this tool, without a cluster
  %[1]s version --client

  # The nodes that an upgrade has not reached yet
  %[1]s version -o json | jq -r '.items[] | select(.agent != "v1.4.0") | .name'`

// options are the values of the command line.
type options struct {
	namespace string // of the agents; "" for all
	output    string
	client    bool
}

// Command returns the command. name is the program's name.
func Command(name string, flags cluster.Flags, writer output.Writer) *cobra.Command {
	var o options
	c := &cobra.Command{
		Use: "version", Short: "Show the versions of tool, agents and plugins, and what does not fit", Long: long,
		Example: fmt.Sprintf(example, name), Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.namespace = cluster.AgentsNamespace(c.Flags())
			format, err := output.ParseFormat(o.output)
			if err != nil {
				return err
			}
			writer.Format = format
			if o.client {
				const because = "with --client no cluster is asked"
				err := flags.CheckUnused(because)
				if err == nil {
					err = cluster.CheckUnused(c.Flags(), because, "namespace")
				}
				if err != nil {
					return err
				}
				return clientOnly(buildinfo.Version()).show(writer)
			}
			return flags.Ask(c.Context(), func(ctx context.Context, from *cluster.Cluster) error {
				return o.run(ctx, from, writer, buildinfo.Version())
			})
		},
	}
	c.Flags().BoolVar(&o.client, "client", false, "show only this tool, and ask no cluster")
	output.Flag(c, &o.output)
	return c
}

// clientOnly returns what is known without a cluster.
func clientOnly(tool string) Version { return Version{Head: output.HeadOf("Version"), Tool: tool} }

func (o options) run(ctx context.Context, from status.Source, w output.Writer, tool string) error {
	s, err := status.Of(ctx, from, o.namespace)
	if err != nil {
		return errors.Join(clientOnly(tool).show(w), outcome.Unasked(err))
	}
	return Of(s, tool).show(w)
}

// show writes the versions. Its error says what does not fit.
func (v Version) show(w output.Writer) error {
	if err := w.Object(v, v.write); err != nil {
		return outcome.Unasked(err)
	}
	if v.Summary != nil && v.Summary.DoNot > 0 {
		return outcome.ErrNotWell
	}
	return outcome.Unasked(v.unknown)
}

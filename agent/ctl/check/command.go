package check

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/agent/ctl/temporary"
	"github.com/istio-pod-network/controller/internal/buildinfo"
	"github.com/spf13/cobra"
)

const long = `Says whether a cluster has what istio-pod-network needs: a list of what is well (✓), what is worth
knowing and may be meant (!), what is not well (✗), and what was not looked at (?). Below each ! and
✗ stands what to do.

It looks at Kubernetes, its nodes and its admission policies, at the Pod Security level of the
agents' namespace, at agents, versions and clocks, at Istio's injection, at the network that pods
get, and at other networks and meshes. With --pre, before an installation, it needs no agent, and
looks at what the API server shows alone.

With --pre --probe-nodes it also has a pod look at each node, from the agents' image, for a moment:
whether the kernel takes the rules of a pod, what lies in the CNI directories, and whether the
runtime's own configuration names these, against the chart's values (--values, --set); and whether
the node can pull the images of agent and plugin. It lists what it makes and mounts, and asks; --yes
says so. The namespace of the pods, istio-pod-network-probe, is removed in the end, also after
Ctrl-C; what a killed run has left, the next one removes, or check --cleanup.

It needs the verbs get on namespaces, and on configmaps in the namespaces of the agents, of Istio
and of Cilium; list on nodes, daemonsets, mutatingwebhookconfigurations and deployments; get on
validatingadmissionpolicies and mutatingadmissionpolicies and on their bindings; list on
network-attachment-definitions in mode nad; and what status needs. What it may not look at it names,
with the right that is missing; that counts neither as well nor as ill. --probe-nodes needs create
on namespaces, get, patch and delete on the temporary one, and in that create on serviceaccounts,
create, get and delete on pods, get on pods/log and list on events; with imagePullSecrets also get
on these secrets in the agents' namespace (-n) and create on secrets.

Exit status: 0 if nothing is ill, 1 if something is, 2 for a wrong command line, 3 if nothing is ill
that could be looked at, but for a missing right or an error not all could, or a node not be probed.`

const example = `  # Before an installation
  %[1]s check --pre

  # Before it, also with a pod on each node that looks at kernel and CNI directories
  %[1]s check --pre --probe-nodes --set kubernetesDistribution=K3s

  # In CI, on five nodes of a large cluster, with the values of the installation
  %[1]s check --pre --probe-nodes --yes --nodes 5 -f values.yaml

  # After it, and whenever something is strange
  %[1]s check

  # What is not well, for a program
  %[1]s check -o json | jq '.items[] | select(.verdict == "not well")'`

// options are a command line's.
type options struct {
	namespace string // of the agents, "" for whichever it is
	output    string
	before    bool
	cleanup   bool
	probe     probeOptions
	tool      string
}

// Command returns the command. name is the program's.
func Command(name string, flags cluster.Flags, writer output.Writer) *cobra.Command {
	o := options{tool: name, probe: probeOptions{pace: temporary.Pace{Poll: time.Second, Beat: 4 * time.Second}}}
	c := &cobra.Command{
		Use: "check", Short: "Say whether a cluster has what istio-pod-network needs", Long: long,
		Example: fmt.Sprintf(example, name), Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.namespace = cluster.AgentsNamespace(c.Flags())
			format, err := output.ParseFormat(o.output)
			if err == nil {
				err = o.checkProbe(c.Flags())
			}
			if err != nil {
				return err
			}
			writer.Format = format
			o.probe.stdin, o.probe.stderr = c.InOrStdin(), c.ErrOrStderr()
			if err := o.probe.read(); err != nil {
				return err
			}
			return flags.Ask(c.Context(), func(ctx context.Context, to *cluster.Cluster) error {
				return o.run(ctx, Source{Source: to, Core: to.Core, Apps: to.Apps, Admission: to.Admission,
					Discovery: to.Discovery, Metadata: to.Metadata, Clock: to.Clock}, writer, buildinfo.Version())
			})
		},
	}
	c.Flags().BoolVar(&o.before, "pre", false, "before an installation: look at the cluster alone")
	c.Flags().BoolVar(&o.cleanup, "cleanup", false, "remove the temporary namespace of --probe-nodes, also that of a run "+
		"that goes on")
	o.probe.flags(c.Flags())
	output.Flag(c, &o.output)
	return c
}

func (o options) run(ctx context.Context, from Source, w output.Writer, tool string) error {
	if o.cleanup {
		s := temporary.NewSpace(space, from.Core.Namespaces(), o.probe.pace, o.tool)
		return s.Clean(ctx, o.probe.timeout, w)
	}
	probes := func(context.Context, *Check) error { return nil }
	if o.probe.wanted {
		var err error
		if probes, err = o.prepare(ctx, from); err != nil {
			return err
		}
	}
	c, err := Of(ctx, from, o.namespace, o.before, tool)
	if err != nil {
		return outcome.Unasked(err)
	}
	unprobed := probes(ctx, &c)
	return cmp.Or(c.show(w), unprobed)
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
	case slices.ContainsFunc(c.Items, Item.isUnasked):
		return outcome.Unasked(errSome)
	}
	return nil
}

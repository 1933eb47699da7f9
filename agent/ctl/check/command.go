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

const long = `Says whether a cluster has what istio-pod-network needs. It prints a list: what is well (✓), what
you should know and may intend (!), what is not well (✗), and what it did not look at (?). Below
each ! and ✗ it says what to do.

It looks at Kubernetes, its nodes and its admission policies, at the Pod Security level of the
agents' namespace, at agents, versions and clocks, at Istio's injection, at the network that pods
get, and at other networks and meshes. With --pre, before an installation, it needs no agent: it
looks only at what the API server shows.

With --pre --probe-nodes it also starts a short-lived pod on each node, from the agents' image. The
pod shows whether the kernel takes the rules of a pod, what the CNI directories contain, and whether
the configuration of the container runtime names these directories. The tool compares that with the
chart's values (--values, --set). It also shows whether the node can pull the images of agent and
plugin. First it lists what it will create and mount, and asks you; with --yes it does not ask. At
the end it removes the namespace of the pods, istio-pod-network-probe, also after Ctrl-C. If a run
is killed, the next run removes what is left, or you do with check --cleanup.

It needs the verbs get on namespaces, and on configmaps in the namespaces of the agents, of Istio
and of Cilium; list on nodes, daemonsets, mutatingwebhookconfigurations and deployments; get on
validatingadmissionpolicies and mutatingadmissionpolicies and on their bindings; list on
network-attachment-definitions in mode nad; and the rights that status needs. If a right is missing,
it names the right and what it did not look at; that counts neither as well nor as not well. With
--probe-nodes it needs create on namespaces; get, patch and delete on the temporary namespace; and
in that namespace create on serviceaccounts, create, get and delete on pods, get on pods/log and
list on events. If the values have imagePullSecrets, it also needs get on these secrets in the
agents' namespace (-n), and create on secrets.

Exit status: 0 if everything is well, 1 if something is not well, 2 for a wrong command line or
file, 3 if nothing that it looked at is not well, but it could not look at everything: a right is
missing, there was an error, or a node could not be probed.`

const example = `  # Before an installation
  %[1]s check --pre

  # Before an installation, also with a pod on each node that looks at kernel and CNI directories
  %[1]s check --pre --probe-nodes --set kubernetesDistribution=K3s

  # In CI, on five nodes of a large cluster, with the values of the installation
  %[1]s check --pre --probe-nodes --yes --nodes 5 -f values.yaml

  # After an installation, and whenever you look for a problem
  %[1]s check

  # What is not well, for a program
  %[1]s check -o json | jq '.items[] | select(.verdict == "not well")'`

// options are the values of the command line.
type options struct {
	namespace string // of the agents; "" if it is to be found
	output    string
	before    bool
	cleanup   bool
	probe     probeOptions
	tool      string
}

// Command returns the command. name is the program's name.
func Command(name string, flags cluster.Flags, writer output.Writer) *cobra.Command {
	o := options{tool: name, probe: probeOptions{pace: temporary.Pace{Poll: time.Second, Beat: 4 * time.Second}}}
	c := &cobra.Command{
		Use: "check", Short: "Check whether a cluster has what istio-pod-network needs", Long: long,
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
	c.Flags().BoolVar(&o.before, "pre", false, "before an installation: look only at what the API server shows")
	c.Flags().BoolVar(&o.cleanup, "cleanup", false, "remove the temporary namespace of --probe-nodes, even if a run "+
		"still uses it")
	o.probe.flags(c.Flags())
	output.Flag(c, &o.output)
	return c
}

func (o options) run(ctx context.Context, from Source, w output.Writer, tool string) error {
	if o.cleanup {
		s := temporary.NewSpace(space, from.Core, o.probe.pace, o.tool)
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

// show writes the results. Its error says whether the cluster is well.
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

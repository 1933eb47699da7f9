package verify

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/agent/ctl/temporary"
	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
)

const long = `Proves on this cluster that pods of the mesh get their rules, by real connections. In a temporary
namespace of Pod Security restricted (istio-pod-network-verify) it makes three pods on each node
that has an agent, or should have one: one of the mesh, with an app and a stand-in of the sidecar;
a peer outside the mesh that they call, and that calls them; and one outside the mesh that makes
the same calls, the control: it shows that the peer sees what gets around a sidecar. They have no
token and no privilege. The pods are those of the chart's helm test, with its image and its
settings.

A flow of the pod of the mesh is well if the right one has answered: outbound, inbound, DNS, what
the pod excludes, the sidecar's own calls, in each IP family, and attempts to get around the
sidecar.

With --istio the cluster's own injection gives pods their sidecar, in a namespace of Pod Security
baseline that the webhooks select: by istio-injection=enabled, by the default revision, by the
only one, or by --revision. In it a Sidecar and a PeerAuthentication of Istio's have Envoy let
nothing out and nothing in (REGISTRY_ONLY, STRICT): what reaches the peer or the app has gone
around it. A second pod of the mesh is called by mTLS. What only a stand-in can show is named
under "Not looked at".

The pods know each other by a secret of the run, so that nobody else's answer is taken for theirs.

The namespace is removed in the end, also after Ctrl-C. What a killed run has left, the next one
removes, or --cleanup. Pods end by themselves a minute after --timeout.

It needs the verb list on nodes and on daemonsets, get on ConfigMap istio-pod-network-verify in
the agents' namespace (that of the first DaemonSet of agents, unless -n says which), create on
namespaces, get, patch and delete on the temporary one, and in that create on serviceaccounts,
create, get and delete on pods, get on pods/log and list on events; with the chart's
imagePullSecrets also get on these secrets and create on secrets. With --istio also list on
mutatingwebhookconfigurations, get on ConfigMap istio-pod-network-config beside the other, and
create on services, sidecars.networking.istio.io and peerauthentications.security.istio.io. The
chart has a ClusterRole for all of it (rbac.verifier).

--junit and -o json also report a run that fails as a whole, as an error.

Exit status: 0 if every node is well, 1 if one is not, 2 for a wrong command line, 3 if something
could not be proven.`

const example = `  # Does every node redirect, and does nothing get around a sidecar?
  %[1]s verify

  # Five nodes of a large cluster, of each kind of node at least one, and a report for CI
  %[1]s verify --nodes 5 --junit verify.xml

  # One node, each flow of it
  %[1]s verify --nodes node-a -o wide

  # The same with the sidecars that this cluster's Istio injects
  %[1]s verify --istio

  # Remove what a run that was killed has left
  %[1]s verify --cleanup`

// options are a command line's.
type options struct {
	namespace string // of the agents, "" for all
	output    string
	nodes     string
	parallel  int
	timeout   time.Duration
	image     string
	junit     string
	cleanup   bool
	istio     bool
	revision  string
	pace      temporary.Pace
	logs      logs // nil: those of the cluster
	create    create
	tool      string
}

// Command returns the command. name is the program's.
func Command(name string, flags cluster.Flags, writer output.Writer) *cobra.Command {
	o := options{tool: name, pace: temporary.Pace{Poll: time.Second, Beat: 4 * time.Second}}
	c := &cobra.Command{
		Use: "verify", Short: "Prove by real connections that each node redirects", Long: long,
		Example: fmt.Sprintf(example, name), Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.namespace = cluster.AgentsNamespace(c.Flags())
			format, err := o.check()
			if err == nil && o.cleanup {
				err = cluster.CheckUnused(c.Flags(), "with --cleanup the namespace "+Namespace+" is removed, and no node looked at",
					"nodes", "parallel", "image", "junit", "istio", "revision", "namespace")
			}
			if err != nil {
				return err
			}
			writer.Format = format
			p := &temporary.Progress{Out: c.ErrOrStderr(), Terminal: output.IsTerminal(c.ErrOrStderr())}
			return o.end(writer, func(prove func(context.Context, *cluster.Cluster) error) error {
				return flags.Ask(c.Context(), prove)
			}, p)
		},
	}
	f := c.Flags()
	f.StringVar(&o.nodes, "nodes", "", "`which`: a number of them, or names with a comma between (default: all)")
	f.IntVar(&o.parallel, "parallel", 5, "how many nodes at once")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long one node may take; with --cleanup, how long to wait "+
		"until the namespace is gone")
	f.StringVar(&o.image, "image", "", "`image` of the plugin, for the pods (default: that of the release)")
	f.StringVar(&o.junit, "junit", "", "`file` to write the outcome to as JUnit's XML")
	f.BoolVar(&o.istio, "istio", false, "by the cluster's own injection, with Envoy in place of the stand-in")
	f.StringVar(&o.revision, "revision", "", "`name` of Istio's revision or tag that injects, with --istio")
	f.BoolVar(&o.cleanup, "cleanup", false, "remove the temporary namespace, also that of a run that goes on")
	output.Flag(c, &o.output)
	return c
}

func (o options) check() (output.Format, error) {
	switch {
	case o.revision != "" && !o.istio:
		return "", outcome.Misusef("--revision %q says who injects, which is for --istio alone", o.revision)
	case o.parallel < 1:
		return "", outcome.Misuse(invalid.Text("--parallel", strconv.Itoa(o.parallel), "", "a number of nodes from 1 on"))
	case o.timeout <= 0:
		return "", outcome.Misuse(invalid.Text("--timeout", o.timeout.String(), "", "a duration of more than 0, such as 5m"))
	}
	if err := temporary.CheckNodes(o.nodes); err != nil {
		return "", err
	}
	if o.junit != "" {
		if err := output.CheckFile("--junit", o.junit); err != nil {
			return "", err
		}
	}
	return output.ParseFormat(o.output)
}

// end asks a cluster by ask, and writes what came of it, also if that is nothing but an error: who reads a report finds
// one after every run.
func (o options) end(
	w output.Writer, ask func(func(context.Context, *cluster.Cluster) error) error, p *temporary.Progress,
) error {
	var result Verification
	err := ask(func(ctx context.Context, from *cluster.Cluster) (err error) {
		if o.cleanup {
			return temporary.NewSpace(space, from.Core.Namespaces(), o.pace, o.tool).Clean(ctx, o.timeout, w)
		}
		result, err = o.run(ctx, from, p)
		return err
	})
	if o.cleanup || outcome.StatusOf(err) == outcome.Misused {
		return err
	}
	return o.show(result, err, w)
}

// run proves the nodes that were asked for.
func (o options) run(ctx context.Context, from *cluster.Cluster, p *temporary.Progress) (v Verification, err error) {
	sets, err := from.DaemonSets(ctx, o.namespace)
	if err != nil {
		return v, outcome.Unasked(fmt.Errorf("listing the agents' DaemonSets, which needs the verb list on daemonsets: %w",
			err))
	}
	if len(sets) == 0 {
		return v, outcome.Unasked(cluster.ErrNoAgent)
	}
	all, err := from.Nodes(ctx)
	if err != nil {
		return v, outcome.Unasked(fmt.Errorf("listing the nodes, which needs the verb list on nodes: %w", err))
	}
	var wanted []corev1.Node
	for _, node := range all {
		for _, set := range sets {
			if cluster.Wants(set, node) {
				wanted = append(wanted, node)
				break
			}
		}
	}
	if len(wanted) == 0 {
		return v, outcome.Unasked(errors.New("by the selector and affinity of the agents' DaemonSet no node is to have " +
			"an agent"))
	}
	nodes, err := temporary.Choose(o.nodes, wanted, "no node that is to have an agent")
	if err != nil {
		return v, err
	}
	k, err := readKit(ctx, from.Core, sets[0].Namespace, o.image)
	if err != nil {
		return v, outcome.Unasked(err)
	}
	k.longest, k.constraints, k.secret = o.timeout+time.Minute, constraintsOf(sets[0]), rand.Text()
	injected, err := o.injection(ctx, from, k)
	if err != nil {
		return v, err
	}
	p.Nodes = len(nodes)
	by := &verifier{core: from.Core, kit: k, agents: sets[0].Namespace, parallel: o.parallel, timeout: o.timeout,
		pace: o.pace, logs: o.logs, progress: p, tool: o.tool,
		mesh: injected}
	if by.logs == nil {
		by.logs = logsOf(from.Core)
	}
	if v, err = by.all(ctx, nodes); err != nil {
		return v, outcome.Unasked(err)
	}
	if others := len(wanted) - len(nodes); others > 0 {
		v.NotLookedAt = append(v.NotLookedAt, fmt.Sprintf("other nodes: %d (--nodes)", others))
	}
	return v, nil
}

// show writes the outcome, also of a run that has failed as a whole; the error says how the cluster is.
func (o options) show(v Verification, failed error, w output.Writer) error {
	if failed != nil {
		v = Verification{Head: output.HeadOf("Verification"), Image: v.Image, Istio: v.Istio, Error: failed.Error(),
			Items: []Node{}}
	}
	if text := w.Format == output.Table || w.Format == output.Wide; failed == nil || !text { // the error is told anyway
		if err := w.Object(v, v.write); err != nil {
			return outcome.Unasked(errors.Join(failed, err))
		}
	}
	if o.junit != "" { // behind what is told: a file that cannot be written is no reason to keep silent
		if err := v.writeJUnit(o.junit); err != nil {
			return outcome.Unasked(errors.Join(failed, err))
		}
	}
	switch {
	case failed != nil:
		return failed
	case v.verdict() == NotWell:
		return outcome.ErrNotWell
	case v.verdict() == NotProven:
		return outcome.Unasked(errors.New("not every node could be proven"))
	}
	return nil
}

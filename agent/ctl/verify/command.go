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

const long = `Proves with real connections that mesh pods of this cluster get their rules. In a temporary
namespace with Pod Security restricted (istio-pod-network-verify) it creates three pods on each node
that has an agent, or should have one:

- a mesh pod, with an app and a stand-in of the sidecar;
- a peer outside the mesh, which the two others call, and which calls the mesh pod;
- the control, a pod outside the mesh that makes the same calls. It shows that the peer sees
  traffic that gets around a sidecar.

The pods have no token and no privileges. They are those of the chart's helm test, with its image
and its settings.

A flow of the mesh pod is well if the right program answers. The flows are: outbound, inbound, DNS,
what the pod excludes, and the sidecar's own calls, in each IP family; and attempts to get around
the sidecar.

With --istio the cluster's own injection gives the pods their sidecars. The namespace has Pod
Security baseline then, and a label that Istio's webhooks select: istio-injection=enabled, that of
the default revision, that of the only revision, or that of --revision. A Sidecar and a
PeerAuthentication of Istio make Envoy let nothing out and nothing in (REGISTRY_ONLY, STRICT): what
reaches the peer or the app has gone around Envoy. A second mesh pod is called with mTLS. What only
a stand-in can show is listed under "Not looked at".

The pods of a run share a secret, so that no other pod can answer for them.

At the end the tool removes the namespace, also after Ctrl-C. If a run is killed, the next run
removes what is left, or you do with --cleanup. The pods end by themselves a minute after --timeout.

It needs the verb list on nodes and on daemonsets; get on ConfigMap istio-pod-network-verify in the
agents' namespace (that of the first DaemonSet of agents, unless you give -n); create on namespaces;
get, patch and delete on the temporary namespace; and in that namespace create on serviceaccounts,
create, get and delete on pods, get on pods/log and list on events. If the chart has
imagePullSecrets, it also needs get on these secrets and create on secrets. With --istio it also
needs list on mutatingwebhookconfigurations, get on ConfigMap istio-pod-network-config in the
agents' namespace, and create on services, sidecars.networking.istio.io and
peerauthentications.security.istio.io. The chart has a ClusterRole with all of these rights
(rbac.verifier).

If a run fails as a whole, --junit and -o json report that as an error.

Exit status: 0 if every node is well, 1 if a node is not well, 2 for a wrong command line, 3 if
something could not be proven.`

const example = `  # Does every node redirect, and does nothing get around a sidecar?
  %[1]s verify

  # Five nodes of a large cluster, at least one of each kind, and a report for CI
  %[1]s verify --nodes 5 --junit verify.xml

  # One node, with a line for each flow
  %[1]s verify --nodes node-a -o wide

  # With the sidecars that this cluster's Istio injects
  %[1]s verify --istio

  # Remove what a killed run has left
  %[1]s verify --cleanup`

// options are the values of the command line.
type options struct {
	namespace string // of the agents; "" for all
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
	logs      logs // nil for those of the cluster
	create    create
	tool      string
}

// Command returns the command. name is the program's name.
func Command(name string, flags cluster.Flags, writer output.Writer) *cobra.Command {
	o := options{tool: name, pace: temporary.Pace{Poll: time.Second, Beat: 4 * time.Second}}
	c := &cobra.Command{
		Use: "verify", Short: "Prove with real connections that each node redirects", Long: long,
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
			p := temporary.NewProgress(c.ErrOrStderr())
			return o.end(writer, func(prove func(context.Context, *cluster.Cluster) error) error {
				return flags.Ask(c.Context(), prove)
			}, p)
		},
	}
	f := c.Flags()
	f.StringVar(&o.nodes, "nodes", "", "the `nodes`: how many, or their names separated by commas (default: all)")
	f.IntVar(&o.parallel, "parallel", 5, "how many nodes at the same time")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "time limit for each node; with --cleanup: time limit for the "+
		"removal")
	f.StringVar(&o.image, "image", "", "`image` of the plugin, for the pods (default: that of the release)")
	f.StringVar(&o.junit, "junit", "", "`file` to which the result is written as JUnit XML")
	f.BoolVar(&o.istio, "istio", false, "use the cluster's own injection, with Envoy in place of the stand-in")
	f.StringVar(&o.revision, "revision", "", "with --istio: `name` of the revision or tag of Istio that injects")
	f.BoolVar(&o.cleanup, "cleanup", false, "remove the temporary namespace, even if a run still uses it")
	output.Flag(c, &o.output)
	return c
}

func (o options) check() (output.Format, error) {
	switch {
	case o.revision != "" && !o.istio:
		return "", outcome.Misusef("--revision %q needs --istio: it says which revision injects", o.revision)
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

// end runs ask and writes the result, even if that is only an error, so that every run has a report.
func (o options) end(
	w output.Writer, ask func(func(context.Context, *cluster.Cluster) error) error, p *temporary.Progress,
) error {
	var result Verification
	err := ask(func(ctx context.Context, from *cluster.Cluster) (err error) {
		if o.cleanup {
			return temporary.NewSpace(space, from.Core, o.pace, o.tool).Clean(ctx, o.timeout, w)
		}
		result, err = o.run(ctx, from, p)
		return err
	})
	if o.cleanup || outcome.StatusOf(err) == outcome.Misused {
		return err
	}
	return o.show(result, err, w)
}

// run verifies the chosen nodes.
func (o options) run(ctx context.Context, from *cluster.Cluster, p *temporary.Progress) (v Verification, err error) {
	sets, err := from.DaemonSets(ctx, o.namespace)
	if err != nil {
		return v, outcome.Unasked(fmt.Errorf("listing the agents' DaemonSets%s: %w",
			cluster.Needs("the verb list on daemonsets", err), err))
	}
	if len(sets) == 0 {
		return v, outcome.Unasked(cluster.ErrNoAgent)
	}
	all, err := from.Nodes(ctx)
	if err != nil {
		return v, outcome.Unasked(fmt.Errorf("listing the nodes%s: %w", cluster.Needs("the verb list on nodes", err), err))
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
		return v, outcome.Unasked(errors.New("the selector and affinity of the agents' DaemonSet select no node"))
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

// show writes the result, also of a run that failed as a whole. Its error says whether the cluster is well.
func (o options) show(v Verification, failed error, w output.Writer) error {
	if failed != nil {
		v = Verification{Head: output.HeadOf("Verification"), Image: v.Image, Istio: v.Istio, Error: failed.Error(),
			Items: []Node{}}
	}
	if text := w.Format == output.Table || w.Format == output.Wide; failed == nil || !text { // the caller prints the error
		if err := w.Object(v, v.write); err != nil {
			return outcome.Unasked(errors.Join(failed, err))
		}
	}
	if o.junit != "" { // after the output: if the file cannot be written, the result is still printed
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

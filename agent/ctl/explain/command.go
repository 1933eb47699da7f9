package explain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/spf13/cobra"
)

const long = `Says whether the plugin redirects a pod's traffic through its sidecar, and why. It prints the
questions of the decision in their order, each with its answer and where the answer was found, and
the settings that apply to the pod.

For a pod in the cluster it also says what happened to the pod: its mark, its init wait and what
that says, the record on its node, whether the rules in its network are the right ones, and its
Events. For the rules, the agent runs the plugin's CHECK; it may do that if the chart's value repair
is apply. For a pod without a sidecar it says which of Istio's injection webhooks select the pod,
and what the settings of their injector say about it.

It needs the verb get on pods. To say everything it needs get on namespaces, list on events, get on
pods/log, list on mutatingwebhookconfigurations, and get on configmaps in istiod's namespace; and in
the agents' namespace list on pods, get on configmaps, and get and create on pods/exec. If a right
is missing, it names what it could not look at.

With -f it makes the plugin's own decision about the pods of a manifest, with the same code. It
needs no cluster and no rights. For a Deployment, StatefulSet, DaemonSet, ReplicaSet, Job or CronJob
it explains the pods that the object creates. Annotations of a Namespace in the same files count for
the pods of that namespace. The plugin sees a pod after admission: if Istio's injector adds the
sidecar in your cluster, give --injected. What other programs have written into a pod's network
(foreign-rules) can be seen only on the node.

Exit status: 0 if each pod is well, or could start; 1 if a pod is not well: it is refused, has no
sidecar although a webhook selects it, waits for a long time, has the mark of another network, or
lacks its rules; 2 for a wrong command line or file; 3 if no pod is known to be not well, but one
could not be asked about. A pod cannot be asked about if the pod itself cannot be read, or what
shows whether it is well: for a pod that is redirected or marked, its record and its rules; for a
pod without a sidecar, its namespace and the webhooks. What the agent does not look at because of
its configuration counts neither as well nor as not well.`

const example = `  # Why is this pod (not) redirected? Does it have its rules?
  %[1]s explain cart-0 -n shop

  # Several pods, of different namespaces, for a program
  %[1]s explain shop/cart-0 bank/ledger-7f -o json

  # Would the pods of this Deployment be redirected?
  %[1]s explain -f deployment.yaml

  # The same with Istio's sidecar and the operator's settings, as in the cluster
  %[1]s explain -f deployment.yaml --injected --config network.json

  # A picture of where its packets go, for a terminal or for a web page
  %[1]s explain cart-0 -n shop --picture
  %[1]s explain cart-0 -n shop --picture=svg > cart.svg

  # In CI: fail if a pod of the chart would be refused
  helm template shop ./chart | %[1]s explain -f - --injected -n shop -o json`

// options are the values of the command line.
type options struct {
	Input
	agents          string // their namespace
	output, picture string
}

// Command returns the command. name is the program's name, namespace the value of the usual flag.
func Command(
	name string, namespace *string, flags cluster.Flags, stdin io.Reader, writer output.Writer,
) *cobra.Command {
	var o options
	c := &cobra.Command{
		Use: "explain {POD... | -f FILE}", Short: "Explain whether a pod is redirected, and why",
		Long: long, Example: fmt.Sprintf(example, name), Args: cobra.ArbitraryArgs,
		ValidArgsFunction: CompletePods(flags, namespace),
		RunE: func(c *cobra.Command, args []string) error {
			format, picture, err := o.check(args)
			if err != nil {
				return err
			}
			writer.Format = format
			if len(o.Files) > 0 {
				if err := flags.CheckUnused(Offline); err != nil {
					return err
				}
				return o.run(*namespace, stdin, picture, writer)
			}
			pods, err := Names(c, flags, *namespace, args)
			if err == nil {
				err = picture.Fits(len(pods))
			}
			if err != nil {
				return err
			}
			settings, err := o.Settings()
			if err != nil {
				return err
			}
			return flags.Ask(c.Context(), func(ctx context.Context, from *cluster.Cluster) error {
				a := asker{from: from, agents: o.agents, now: time.Now()}
				a.take(settings)
				return a.look(ctx, pods, picture, writer)
			})
		},
	}
	o.Bind(c)
	BindAgents(c, &o.agents)
	output.Flag(c, &o.output)
	output.PictureFlag(c, &o.picture, "draw where a call from the app and a call to the app go")
	return c
}

// BindAgents adds the flag for the agents' namespace to a command.
func BindAgents(c *cobra.Command, agents *string) {
	c.Flags().StringVar(agents, "agents-namespace", "", "`namespace` of the agents (default: the tool finds it)")
}

func (o options) check(pods []string) (format output.Format, picture output.Picture, err error) {
	if err = output.CheckPicture(o.picture, pods); err == nil {
		err = o.CheckBeside(pods, o.agents)
	}
	if err == nil {
		format, err = output.ParseFormat(o.output)
	}
	if err != nil {
		return format, picture, err
	}
	picture, err = output.ParsePicture(o.picture, format)
	return format, picture, outcome.Misuse(err)
}

// run explains the pods in the files.
func (o options) run(namespace string, stdin io.Reader, picture output.Picture, w output.Writer) error {
	list, err := o.Read(namespace, stdin)
	if err != nil {
		return err
	}
	return list.show(w, picture, nil)
}

// look explains pods of the cluster, NAMESPACE/NAME.
func (a *asker) look(ctx context.Context, pods []string, picture output.Picture, w output.Writer) error {
	list, unread := a.explain(ctx, pods)
	if len(list.Items) == 0 {
		return outcome.Unasked(errors.Join(unread...))
	}
	return list.show(w, picture, unread)
}

// show writes the list. Its error says whether the pods are well. unread are the errors of pods that are not in the
// list.
func (l List) show(w output.Writer, picture output.Picture, unread []error) error {
	if err := picture.Fits(len(l.Items)); err != nil {
		return err
	}
	if err := l.put(w, picture); err != nil {
		return outcome.Unasked(err)
	}
	has := func(state State) bool {
		return slices.ContainsFunc(l.Items, func(e Explanation) bool { return e.state() == state })
	}
	switch {
	case has(NotWell):
		return outcome.ErrNotWell
	case len(unread) > 0:
		return outcome.Unasked(errors.Join(unread...))
	case has(NotAsked):
		return outcome.Unasked(errors.New("not everything could be asked"))
	}
	return nil
}

// put writes the list, or the picture of its only pod.
func (l List) put(w output.Writer, picture output.Picture) error {
	if picture == output.InSVG && len(l.Items) == 1 {
		_, err := io.WriteString(w.Out, l.Items[0].svg())
		return err
	}
	return w.Object(l, func(t *output.Text) { l.write(t, picture == output.InText) })
}

// namespaceOf returns the namespace of pods that are named without one: the flag's, otherwise the kubeconfig context's.
func namespaceOf(c *cobra.Command, flags cluster.Flags, said string) (string, error) {
	if c.Flags().Changed("namespace") {
		return said, nil
	}
	return flags.Namespace()
}

// Names returns the pods in the arguments as NAMESPACE/NAME, each once. said is the usual flag's namespace.
func Names(c *cobra.Command, flags cluster.Flags, said string, args []string) ([]string, error) {
	in, err := namespaceOf(c, flags, said)
	if err != nil {
		return nil, err
	}
	return namesOf(args, in)
}

// namesOf returns the pods in the arguments as NAMESPACE/NAME, each once.
func namesOf(args []string, in string) (pods []string, err error) {
	for _, arg := range args {
		namespace, name, err := cluster.ParsePod("POD", arg, in)
		if err != nil {
			return nil, err
		}
		if pod := namespace + "/" + name; !slices.Contains(pods, pod) {
			pods = append(pods, pod)
		}
	}
	return pods, nil
}

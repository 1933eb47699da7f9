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

const long = `Says whether the plugin redirects a pod's traffic through its sidecar, and why: the questions that
the decision asks, in their order, with the answer of each and where it was found, and the settings
that apply to the pod.

Of a pod in the cluster it also says what became of it: its mark, its init wait and what that says,
the record on its node, whether the rules in its network are those that should be there (by the
plugin's CHECK, which the agent runs where the chart's value repair is apply), its Events, and of a
pod without a sidecar which of Istio's injection webhooks select it, and what the settings of the
injector behind them say of it. It needs the verb get on pods. It says all with get on namespaces,
list on events, get on pods/log, list on pods, get on configmaps and get and create on pods/exec in
the agents' namespace, list on mutatingwebhookconfigurations, and get on configmaps in istiod's
namespace; without one of these it names what it could not look at.

With -f it makes the plugin's own decision from a manifest, by the same code, and needs no cluster
and no rights. Of a Deployment, StatefulSet, DaemonSet, ReplicaSet, Job or CronJob it explains the
pods that it makes; the annotations of a Namespace in the same files count for its pods. The plugin
sees a pod after admission: where Istio's injector adds the sidecar in the cluster, --injected
assumes what it would add. What other programs have written into a pod's network (foreign-rules) is
seen on the node alone.

Exit status: 0 if each pod is as it should be, or could start; 1 if one is not: refused, without a
sidecar although a webhook selects it, waiting for long, with a mark of another network, without its
rules; 2 if a file or the command line cannot be used; 3 if none is ill, and a pod could not be
asked about: itself, or what decides whether it is well, which is the record and the rules of a pod
that is redirected or marked, and of one without a sidecar its namespace and the webhooks. What the
agent does not look at by its configuration counts neither as well nor as ill.`

const example = `  # Why is this pod (not) redirected, and has it its rules?
  %[1]s explain cart-0 -n shop

  # Several, of any namespace, for a program
  %[1]s explain shop/cart-0 bank/ledger-7f -o json

  # Why would this Deployment's pod not be redirected?
  %[1]s explain -f deployment.yaml

  # As the cluster would see it, with Istio's sidecar and the operator's settings
  %[1]s explain -f deployment.yaml --injected --config network.json

  # The ways of its packets as a picture, for a terminal or for a page
  %[1]s explain cart-0 -n shop --picture
  %[1]s explain cart-0 -n shop --picture=svg > cart.svg

  # In CI: fail if a pod of the chart would be refused
  helm template shop ./chart | %[1]s explain -f - --injected -n shop -o json`

// options are a command line's.
type options struct {
	Input
	agents          string // their namespace
	output, picture string
}

// Command returns the command. name is the program's, namespace that of the usual flag.
func Command(
	name string, namespace *string, flags cluster.Flags, stdin io.Reader, writer output.Writer,
) *cobra.Command {
	var o options
	c := &cobra.Command{
		Use: "explain {POD... | -f FILE}", Short: "Say whether a pod is redirected, and why",
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
	output.PictureFlag(c, &o.picture, "draw the ways of a call of the app and of one to it")
	return c
}

// BindAgents gives a command the flag that says in which namespace the agents are.
func BindAgents(c *cobra.Command, agents *string) {
	c.Flags().StringVar(agents, "agents-namespace", "", "`namespace` of the agents (default: where they are found)")
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

// run explains what the files have.
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

// show writes the list; the error says how the pods are. unread are errors of those that are not in it.
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

// put writes the list, or the drawing of its one pod.
func (l List) put(w output.Writer, picture output.Picture) error {
	if picture == output.InSVG && len(l.Items) == 1 {
		_, err := io.WriteString(w.Out, l.Items[0].svg())
		return err
	}
	return w.Object(l, func(t *output.Text) { l.write(t, picture == output.InText) })
}

// namespaceOf is the namespace of pods that name none: the flag's, or else that of the kubeconfig's context.
func namespaceOf(c *cobra.Command, flags cluster.Flags, said string) (string, error) {
	if c.Flags().Changed("namespace") {
		return said, nil
	}
	return flags.Namespace()
}

// Names returns the pods that arguments name, as NAMESPACE/NAME, each once; said is the usual flag's namespace.
func Names(c *cobra.Command, flags cluster.Flags, said string, args []string) ([]string, error) {
	in, err := namespaceOf(c, flags, said)
	if err != nil {
		return nil, err
	}
	return namesOf(args, in)
}

// namesOf returns the pods that arguments name, as NAMESPACE/NAME, each once.
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

// Package trace says where a packet of a pod goes and why, by evaluating the rules that the plugin writes.
package trace

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/explain"
	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/spf13/cobra"
)

const long = `Follows a packet through the hooks, chains and rules of a pod. It prints each step, the rule that
takes the packet and why, where the packet lands, and which original destination its receiver sees.

The rules are those that the plugin would write now, for a pod of the cluster or of a manifest (-f).
To see whether the pod has these rules, use explain. The packet opens a connection, or it is a UDP
datagram. Without --live the tool sends nothing. With -o wide it also lists the rules that do not
take the packet, and then follows what the sidecar sends. If something is not known, it names what
it assumes: addresses, if the pod has none yet, and the user of a container, if only the image says
it. It does not look at rules of other programs in the pod.

With --live the node's agent sends such a packet, from the pod's network or, with --from outside,
from the node's. Beside the prediction the tool prints what the kernel says: each rule that takes
the packet, also of other programs, and where the packet ends. The packet is dropped there, behind
all rules: nobody receives it. --live needs a pod of the cluster, repair: apply, rules of the
backend nftables, and Linux 5.12 on the node. If the agent cannot look, the tool says why.

With -f it needs no cluster and no rights. For a pod of the cluster it needs the verb get on pods;
to read the settings, also get on namespaces, list on pods, and get on configmaps in the agents'
namespace. If one of these is missing, it assumes the defaults, and says so. With --live it also
needs get and create on pods/exec in the agents' namespace.

Exit status: 0 if each packet lands; 1 if a packet is dropped, its pod does not start, or the kernel
says otherwise; 2 for a wrong command line or file; 3 if a pod could not be asked about.`

const example = `  # Where does a packet go that the app sends to a service?
  %[1]s trace cart-0 -n shop --from app --to 10.96.0.10:80

  # The same for a pod of a manifest
  %[1]s trace -f pod.yaml --from app --to 10.96.0.10:80

  # A DNS query, and a packet from outside to the app's port
  %[1]s trace -f pod.yaml --injected --dns --to 10.96.0.10
  %[1]s trace -f pod.yaml --injected --from outside --to pod:8080

  # Does the kernel do the same?
  %[1]s trace cart-0 -n shop --from app --to 10.96.0.10:80 --live

  # A picture of the packet's way, for a terminal or for a web page
  %[1]s trace -f pod.yaml --to 10.96.0.10:80 --picture
  %[1]s trace -f pod.yaml --to 10.96.0.10:80 --picture=svg > way.svg`

var (
	backends = []string{"nftables", "iptables"}
	protos   = map[string]redirect.Proto{"tcp": redirect.TCP, "udp": redirect.UDP}
)

// options are the values of the command line.
type options struct {
	explain.Input
	from, to, proto, backend, picture, output string
	dns, live                                 bool
	pod                                       []string
	agents                                    string // their namespace
}

// Command returns the command. name is the program's name, namespace the value of the usual flag.
func Command(
	name string, namespace *string, flags cluster.Flags, stdin io.Reader, writer output.Writer,
) *cobra.Command {
	var o options
	c := &cobra.Command{
		Use: "trace {POD... | -f FILE} --to ADDRESS:PORT", Short: "Show where a packet of a pod goes, and why",
		Long: long, Example: fmt.Sprintf(example, name), Args: cobra.ArbitraryArgs,
		ValidArgsFunction: explain.CompletePods(flags, namespace),
		RunE: func(c *cobra.Command, args []string) error {
			if err := output.CheckPicture(o.picture, args); err != nil {
				return err
			}
			if err := o.CheckBeside(args, o.agents); err != nil {
				return err
			}
			question, err := o.question()
			if err != nil {
				return err
			}
			if len(o.Files) > 0 {
				if err := flags.CheckUnused(explain.Offline); err != nil {
					return err
				}
				list, err := o.Read(*namespace, stdin)
				if err != nil {
					return err
				}
				return question.answer(list, nil, writer)
			}
			pods, err := explain.Names(c, flags, *namespace, args)
			if err == nil {
				err = question.picture.Fits(len(pods))
			}
			if err != nil {
				return err
			}
			settings, err := o.Settings()
			if err != nil {
				return err
			}
			return flags.Ask(c.Context(), func(ctx context.Context, from *cluster.Cluster) error {
				question.kernel = o.kernels(ctx, from)
				return question.ask(ctx, from, o.agents, settings, pods, writer)
			})
		},
	}
	o.Bind(c)
	explain.BindAgents(c, &o.agents)
	f := c.Flags()
	f.StringVar(&o.from, "from", "app", "`who` sends the packet: app, proxy (the sidecar), outside, uid:N or uid:N:GROUP")
	f.StringVar(&o.to, "to", "", "`address:port` of the destination; pod:PORT is the pod itself")
	f.StringVar(&o.proto, "proto", "", "`protocol`: tcp, udp (default: tcp; with --dns, udp)")
	f.BoolVar(&o.dns, "dns", false, "the packet is a DNS query: UDP, and port 53 if --to has no port")
	f.BoolVar(&o.live, "live", false, "send such a packet, which nobody receives, and compare with what the kernel does")
	f.StringVar(&o.backend, "backend", backends[0], "`backend` that holds the rules: nftables, iptables")
	f.StringSliceVar(&o.pod, "pod-address", nil, "`addresses` of the pod, separated by commas (default: those of its "+
		"status)")
	_ = c.RegisterFlagCompletionFunc("from", cobra.FixedCompletions([]string{"app", "proxy", "outside", "uid:"},
		cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("proto", cobra.FixedCompletions([]string{"tcp", "udp"},
		cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("backend", cobra.FixedCompletions(backends, cobra.ShellCompDirectiveNoFileComp))
	output.PictureFlag(c, &o.picture, "draw the packet's way")
	output.Flag(c, &o.output)
	return c
}

// ask answers the question for pods of the cluster, NAMESPACE/NAME.
func (q question) ask(
	ctx context.Context, from explain.Source, agents string, settings explain.Settings, pods []string, w output.Writer,
) error {
	list, unread := explain.Decide(ctx, from, agents, settings, pods)
	if len(list.Items) == 0 {
		return outcome.Unasked(errors.Join(unread...))
	}
	for _, e := range list.Items {
		for _, what := range e.Live.NotLookedAt {
			if !slices.Contains(list.NotLookedAt, what) {
				list.NotLookedAt = append(list.NotLookedAt, what)
			}
		}
	}
	return q.answer(list, unread, w)
}

// answer traces a packet of each explained pod. unread are the errors of pods that could not be read.
func (q question) answer(explained explain.List, unread []error, w output.Writer) error {
	if err := q.picture.Fits(len(explained.Items)); err != nil {
		return err
	}
	list := List{Head: output.HeadOf("TraceList"), Operator: explained.Operator, NotLookedAt: explained.NotLookedAt}
	for _, e := range explained.Items {
		item, err := q.of(e)
		if err != nil {
			return outcome.Misuse(err)
		}
		list.Items = append(list.Items, item)
	}
	w.Format = q.format
	if err := q.write(list, w); err != nil {
		return err
	}
	for _, item := range list.Items {
		if !item.lands() || item.Kernel != nil && item.Kernel.Looked && !item.Kernel.Agrees {
			return outcome.ErrNotWell
		}
	}
	for _, item := range list.Items {
		if item.Kernel != nil && item.Kernel.unasked {
			unread = append(unread, fmt.Errorf("the kernel of the node of %s/%s: %s", item.Namespace, item.Name,
				item.Kernel.Detail))
		}
	}
	if len(unread) > 0 {
		return outcome.Unasked(errors.Join(unread...))
	}
	return nil
}

// write writes the answer in the chosen form.
func (q question) write(list List, w output.Writer) error {
	if q.picture == output.InSVG {
		_, err := io.WriteString(w.Out, list.Items[0].svg())
		return outcome.Unasked(err)
	}
	return outcome.Unasked(w.Object(list, func(t *output.Text) { list.write(t, q.picture == output.InText) }))
}

// question parses the question. Its error has an exit status.
func (o options) question() (q question, err error) {
	if q.format, err = output.ParseFormat(o.output); err == nil {
		err = outcome.Misuse(o.read(&q))
	}
	return q, err
}

func (o options) read(q *question) (err error) {
	q.iptables = o.backend == backends[1]
	var known bool
	switch {
	case !slices.Contains(backends, o.backend):
		return invalid.Text("--backend", o.backend, "unknown backend", strings.Join(backends, ", "))
	case o.live && len(o.Files) > 0:
		return invalid.Text("--live", "true", "with -f there is no pod to send from", "--live with pods of the cluster")
	case o.live && q.iptables:
		return invalid.Text("--backend", o.backend, "the kernel reports only rules of nftables", "nftables, with --live")
	}
	switch q.proto, known = protos[o.proto]; {
	case o.proto == "" && o.dns:
		q.proto = redirect.UDP
	case o.proto == "":
		q.proto = redirect.TCP
	case !known:
		return invalid.Text("--proto", o.proto, "unknown protocol", "tcp, udp")
	}
	port := redirect.Port(0)
	if o.dns {
		port = dnsPort
	}
	if q.to, err = parseTo(o.to, port); err != nil {
		return err
	}
	if q.picture, err = output.ParsePicture(o.picture, q.format); err != nil {
		return err
	}
	if q.from, err = parseFrom(o.from); err != nil {
		return err
	}
	if q.addresses, err = parseAddresses(o.pod); err != nil || len(q.addresses) == 0 {
		return err
	}
	return q.fits(q.addresses) // the pod's own addresses are known once it is read; of checks them then
}

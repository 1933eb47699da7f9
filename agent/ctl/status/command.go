package status

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/spf13/cobra"
)

const long = `Says for each node of the cluster whether its pods get their rules. The table shows the versions of
agent and plugin, how the plugin is chained, the backend, kernel and runtime, and how many pods are
redirected, left untouched, waiting and bypassed (R/L/W/B). Below the table stands what is not well,
and what to do about it. There is also a warning if another mesh's plugin is on a node, or if an
older agent cannot answer all questions. During an upgrade, a line says how far it is.

With --wait it waits until all nodes are well and an upgrade has reached all of them.

It asks the agents, by exec in their containers. It needs the verb list on nodes; and in the agents'
namespace (in all namespaces, unless you give -n) list on pods and daemonsets, and get and create on
pods/exec. If a right is missing, it says what it could not look at. If it may not list nodes and
daemonsets, it cannot see that a node lacks its agent. If it may not exec, it knows only whether an
agent is ready.

Exit status: 0 if all nodes are well; 1 if a node is not well, or with --wait if an upgrade did not
end in time; 2 for a wrong command line; 3 if a node could not be asked, or nodes or daemonsets
could not be listed.`

const example = `  # Is every node well?
  %[1]s status

  # After an installation or an upgrade: wait until every node is well, for at most five minutes
  %[1]s status --wait --timeout 5m

  # Watch the nodes while a release rolls out
  %[1]s status --watch

  # The nodes that are not well, for a program
  %[1]s status -o json | jq '.items[] | select(.verdict != "well")'`

// Pauses between two looks.
const (
	watchPause = 5 * time.Second
	waitPause  = 2 * time.Second
)

// options are the values of the command line.
type options struct {
	namespace string // of the agents; "" for all
	output    string
	watch     bool
	wait      bool
	timeout   time.Duration
	pause     time.Duration // between two looks of --watch
	stderr    io.Writer
}

// Command returns the command. name is the program's name.
func Command(name string, flags cluster.Flags, writer output.Writer) *cobra.Command {
	o := options{pause: watchPause}
	c := &cobra.Command{
		Use: "status", Short: "Show for each node whether its pods get their rules", Long: long,
		Example: fmt.Sprintf(example, name), Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.namespace = cluster.AgentsNamespace(c.Flags())
			format, err := o.check(c.Flags().Changed("timeout"))
			if err != nil {
				return err
			}
			writer.Format, o.stderr = format, c.ErrOrStderr()
			return flags.Ask(c.Context(), func(ctx context.Context, from *cluster.Cluster) error {
				return o.run(ctx, from, writer)
			})
		},
	}
	f := c.Flags()
	f.BoolVarP(&o.watch, "watch", "w", false, "look again every few seconds until you press Ctrl-C; each YAML document "+
		"begins with ---, JSON objects follow each other")
	f.BoolVar(&o.wait, "wait", false, "wait until all nodes are well and have agents of the current release")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "with --wait: how long to wait")
	output.Flag(c, &o.output)
	return c
}

// check validates the combination of flags. timed says that the command line has --timeout.
func (o options) check(timed bool) (output.Format, error) {
	switch {
	case o.watch && o.wait:
		return "", outcome.Misusef("--watch and --wait exclude each other")
	case timed && !o.wait:
		return "", outcome.Misusef("--timeout is for --wait alone")
	case o.timeout <= 0:
		return "", outcome.Misuse(invalid.Text("--timeout", o.timeout.String(), "", "a duration of more than 0, such as 5m"))
	}
	return output.ParseFormat(o.output)
}

func (o options) run(ctx context.Context, from Source, w output.Writer) error {
	switch {
	case o.watch:
		return o.watching(ctx, from, w)
	case o.wait:
		return o.waiting(ctx, from, w)
	}
	s, err := Of(ctx, from, o.namespace)
	if err != nil {
		return outcome.Unasked(err)
	}
	return s.show(w)
}

// Why nothing, or not everything, is known about a cluster.
var (
	ErrNoNode   = errors.New("there is no agent, and the selector and affinity of its DaemonSet select no node")
	ErrNotAsked = errors.New("not every node could be asked")
	ErrUnlisted = errors.New("a node may lack an agent without anybody seeing it: what was not looked at says why")
)

// show writes the status. Its error says whether the cluster is well.
func (s Status) show(w output.Writer) error {
	if err := w.Object(s, s.write); err != nil {
		return outcome.Unasked(err)
	}
	switch s.verdict() {
	case NotWell:
		return outcome.ErrNotWell
	case NotAsked:
		return outcome.Unasked(s.Unknown(s.Summary.NotAsked))
	}
	return nil
}

// Unknown returns why not everything is known, if that many nodes were not asked; nil if everything is known.
func (s Status) Unknown(notAsked int) error {
	switch {
	case notAsked > 0:
		return ErrNotAsked
	case len(s.Unlisted) > 0:
		return ErrUnlisted
	case len(s.Items) == 0:
		return ErrNoNode
	}
	return nil
}

// watching looks again and again, and returns the last look's error. After a first answer it tolerates failures.
func (o options) watching(ctx context.Context, from Source, w output.Writer) (last error) {
	for looked := false; ; {
		s, err := Of(ctx, from, o.namespace)
		switch {
		case err != nil && !looked:
			return outcome.Unasked(err)
		case ctx.Err() != nil:
			return last
		case err != nil:
			last = outcome.Unasked(err)
			to := w.Out
			if w.Format == output.JSON || w.Format == output.YAML {
				to = o.stderr // a program's output has objects only
			}
			_, _ = fmt.Fprintf(to, "%s: not asked: %s\n", time.Now().Format(time.TimeOnly), output.Printable(err.Error()))
		default:
			looked = true
			w.Again()
			last = s.show(w)
		}
		if !cluster.Pause(ctx, o.pause) {
			return last
		}
	}
}

// waiting looks until all is well or the time is over, and writes the last look.
func (o options) waiting(ctx context.Context, from Source, w output.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	var last *Status
	var failed error
	for {
		s, err := Of(ctx, from, o.namespace)
		over := ctx.Err() != nil
		switch {
		case err == nil && (!over || last == nil):
			last = &s
		case err != nil && !over:
			failed = err
		}
		if err == nil && s.settled() || over || !cluster.Pause(ctx, waitPause) {
			break
		}
	}
	if cause := context.Cause(ctx); last == nil && !errors.Is(cause, context.DeadlineExceeded) {
		return outcome.Unasked(errors.Join(failed, cause)) // the user's signal
	}
	if last == nil {
		return outcome.Unasked(errors.Join(failed, fmt.Errorf("nothing answered within %s", o.timeout)))
	}
	if err := last.show(w); err != nil || len(last.Rollouts) == 0 {
		return err
	}
	return outcome.ErrNotWell // not all became well in time
}

// settled reports whether waiting can end. What the user may not list does not count, because waiting does not change
// it.
func (s Status) settled() bool {
	return s.Summary.NotWell+s.Summary.NotAsked+len(s.Rollouts) == 0 && len(s.Items) > 0
}

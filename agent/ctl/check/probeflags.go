package check

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/agent/ctl/temporary"
	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
)

// probeOptions are the options of --probe-nodes.
type probeOptions struct {
	wanted   bool
	yes      bool
	nodes    string
	parallel int
	timeout  time.Duration
	image    string
	files    []string
	set      []string
	chart    charted // from --values and --set
	pace     temporary.Pace
	logs     logs // nil for those of the cluster
	stdin    io.Reader
	stderr   io.Writer
}

// needProbe are flags without effect unless --probe-nodes is set.
var needProbe = []string{"yes", "nodes", "parallel", "timeout", "image", "values", "set"}

func (o *probeOptions) flags(f *pflag.FlagSet) {
	f.BoolVar(&o.wanted, "probe-nodes", false, "with --pre: start a pod on each node that looks at kernel and CNI "+
		"directories")
	f.BoolVarP(&o.yes, "yes", "y", false, "with --probe-nodes: create the pods without asking")
	f.StringVar(&o.nodes, "nodes", "", "with --probe-nodes: the `nodes`: how many, or their names separated by commas "+
		"(default: all)")
	f.IntVar(&o.parallel, "parallel", 5, "with --probe-nodes: how many nodes at the same time")
	f.DurationVar(&o.timeout, "timeout", 2*time.Minute, "with --probe-nodes: time limit for each node; with --cleanup: "+
		"time limit for the removal")
	f.StringVar(&o.image, "image", "", "with --probe-nodes: `image` of the agent (default: that of the chart's values)")
	f.StringArrayVarP(&o.files, "values", "f", nil, "with --probe-nodes: `file` with values of the chart, - for standard "+
		"input; can be repeated")
	f.StringArrayVar(&o.set, "set", nil, "with --probe-nodes: one value of the chart, `KEY=VALUE`, such as "+
		"kubernetesDistribution=K3s; can be repeated")
}

// checkProbe returns an error for invalid flags and invalid combinations.
func (o options) checkProbe(set *pflag.FlagSet) error {
	p := o.probe
	changed := slices.IndexFunc(needProbe, func(name string) bool {
		f := set.Lookup(name)
		return f != nil && f.Changed && (name != "timeout" || !o.cleanup)
	})
	var cleans error
	if o.cleanup {
		cleans = cluster.CheckUnused(set, "with --cleanup the namespace "+Namespace+" is removed, and nothing looked at",
			"pre", "probe-nodes", "namespace")
	}
	switch {
	case cleans != nil:
		return cleans
	case p.wanted && !o.before:
		return outcome.Misusef("--probe-nodes needs --pre: without it, check asks the agents")
	case changed >= 0 && !p.wanted:
		return outcome.Misusef("--%s is for check --pre --probe-nodes alone", needProbe[changed])
	case p.parallel < 1:
		return outcome.Misuse(invalid.Text("--parallel", strconv.Itoa(p.parallel), "", "a number of nodes from 1 on"))
	case p.timeout <= 0:
		return outcome.Misuse(invalid.Text("--timeout", p.timeout.String(), "", "a duration of more than 0, such as 2m"))
	}
	return temporary.CheckNodes(p.nodes)
}

// charted is what the chart's values say of agents.
type charted struct {
	values   values
	platform platform
	image    string
	plugin   string // the plugin's image, which mesh pods pull
}

// read reads the values before any cluster is asked, because an invalid value is the user's mistake. Its error has an
// exit status.
func (o *probeOptions) read() (err error) {
	if !o.wanted {
		return nil
	}
	c := &o.chart
	if c.values, err = readValues(o.files, o.set, o.stdin); err != nil {
		return err
	}
	if c.platform, err = c.values.platform(); err != nil {
		return err
	}
	if c.image = o.image; c.image == "" {
		if c.image, err = c.values.image(); err != nil {
			return err
		}
	}
	c.plugin, err = c.values.pluginImage()
	return err
}

// hostless are labels of nodes without a host, where no agent can run: those of the chart's template "haveHosts".
var hostless = map[string]string{"eks.amazonaws.com/compute-type": "fargate", "type": "virtual-kubelet"}

func hasHost(n corev1.Node) bool {
	for key, value := range hostless {
		if n.Labels[key] == value {
			return false
		}
	}
	return system(n) == "linux"
}

// progress returns the progress for the user.
func (o probeOptions) progress() *temporary.Progress {
	return temporary.NewProgress(o.stderr)
}

// prepare prints what will be created, asks for permission, and returns a function that probes and judges.
func (o options) prepare(ctx context.Context, from Source) (run func(context.Context, *Check) error, err error) {
	p := prober{core: from.Core, charted: o.probe.chart, agents: o.namespace, parallel: o.probe.parallel,
		timeout: o.probe.timeout, pace: o.probe.pace, logs: o.probe.logs, progress: o.probe.progress(), tool: o.tool}
	if p.agents == "" {
		p.agents = usual
	}
	if p.logs == nil {
		p.logs = logsOf(from.Core)
	}
	all, err := from.Nodes(ctx)
	if err != nil {
		return nil, outcome.Unasked(fmt.Errorf("listing the nodes%s: %w", cluster.Needs("the verb list on nodes", err), err))
	}
	all = slices.DeleteFunc(slices.Clone(all), func(n corev1.Node) bool { return !hasHost(n) })
	if len(all) == 0 {
		return nil, outcome.Unasked(errors.New("no node runs Linux on a host of its own"))
	}
	nodes, err := temporary.Choose(o.probe.nodes, all, "no node that would have an agent")
	if err != nil {
		return nil, err
	}
	p.runtimes = map[string]string{}
	for _, n := range all {
		p.runtimes[n.Name], _, _ = strings.Cut(n.Status.NodeInfo.ContainerRuntimeVersion, "://")
	}
	fmt.Fprint(o.probe.stderr, p.plan(nodes))
	if err := o.probe.ask(); err != nil {
		return nil, err
	}
	p.progress.Nodes = len(nodes)
	return func(ctx context.Context, c *Check) error { return c.probe(ctx, p, nodes, len(all)) }, nil
}

// ask asks for permission to create the pods, if there is a terminal.
func (o probeOptions) ask() error {
	switch {
	case o.yes:
		return nil
	case !output.IsTerminal(o.stdin) || !output.IsTerminal(o.stderr):
		return outcome.Misusef("--probe-nodes: nothing was created, because there is no terminal to ask you at; --yes " +
			"creates what is listed above")
	}
	fmt.Fprint(o.stderr, "Make them? [y/N] ")
	answer, _ := bufio.NewReader(o.stdin).ReadString('\n')
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return outcome.Unasked(errors.New("nothing was made"))
	}
	return nil
}

// probe probes nodes and adds the results. Its error says that some node could not be probed.
func (c *Check) probe(ctx context.Context, p prober, nodes []string, all int) error {
	c.group = "Nodes"
	found, missing, err := p.all(ctx, nodes)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		c.add(Item{Check: "probe", Verdict: NotLookedAt, What: "kernels and CNI directories: " + err.Error()})
		c.count()
		return outcome.Unasked(fmt.Errorf("probing the nodes: %w", err))
	}
	for _, what := range missing {
		c.add(Item{Check: "probe", Verdict: NotLookedAt, What: what})
	}
	c.judge(p, found)
	if others := all - len(nodes); others > 0 {
		c.add(Item{Check: "probe", Verdict: NotLookedAt, What: fmt.Sprintf("kernels and CNI directories of other nodes: %d "+
			"(--nodes)", others)})
	}
	c.count()
	if slices.ContainsFunc(found, func(its probed) bool { return its.err != nil && !its.image }) {
		return errUnprobed
	}
	return nil
}

// Command agent measures the agent against a real API server: how long it takes from the plugin's record until a pod's
// mark is visible, how much memory the agent needs, and how many requests it sends. It prints the numbers with the
// budgets of the design. It fails if a budget is clearly exceeded that is not a time. It needs root: it runs in
// namespaces of its own, so that it changes nothing on the machine.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/apiserver"
	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
)

// options are the flags.
type options struct {
	n       int // pods for the latency
	burst   int // records at once
	pods    int // pods on the node
	cluster int // pods in the cluster
	spaces  int // namespaces in the cluster
	largest int // pods of the largest size
	idle    time.Duration
}

func main() {
	var o options
	flag.IntVar(&o.n, "n", 60, "pods that are added one after the other")
	flag.IntVar(&o.burst, "burst", 250, "records that appear at once")
	flag.IntVar(&o.pods, "pods", 250, "pods on the agent's node")
	flag.IntVar(&o.cluster, "cluster", 5000, "pods in the cluster in the second part")
	flag.IntVar(&o.spaces, "namespaces", 10000, "namespaces in the cluster in the third part")
	flag.IntVar(&o.largest, "largest", 250, "pods of the largest size on a node in the fourth part")
	flag.DurationVar(&o.idle, "idle", 5*time.Minute, "how long the agent idles before its memory is read")
	flag.Parse()
	os.Exit(isolated.Main(measurement{o}, prepare))
}

func prepare(bin string) error {
	if err := build.Link(bin, apiserver.Programs...); err != nil {
		return err
	}
	return build.Product(bin, "./plugin/istio-pod-network", "./agent/istio-pod-network-agent")
}

// measurement runs on the node.
type measurement struct{ options }

// Run measures, prints the numbers, and returns the exit status.
func (m measurement) Run() int {
	dir, err := os.MkdirTemp("", "bench")
	if err == nil {
		defer os.RemoveAll(dir)
		err = m.run(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

func (m measurement) run(dir string) error {
	c, err := newCluster(dir)
	if err != nil {
		return err
	}
	defer c.stop()
	var rows []row
	progress("%d pods on the node, then %d one after the other", m.pods, m.n)
	for _, step := range []func(*cluster) ([]row, error){m.marks, m.memory, m.besideMany, m.manyNamespaces,
		m.largestPods} {
		more, err := step(c)
		if err != nil {
			return fmt.Errorf("%w\nlog of the agent:\n%s", err, c.agentLog())
		}
		rows = append(rows, more...)
	}
	return m.report(rows)
}

// row is one number and its budget, the largest allowed value. A budget of 0 means none.
type row struct {
	what          string
	value, budget float64
	unit          string
	margin        float64 // the measurement fails above margin * budget; 0 means that it never fails
}

// Margins of budgets.
const (
	machines = 0    // for times, which depend on the machine and the API server
	clear    = 1.25 // for numbers that differ a little between runs
	exact    = 1    // for counts, memory while idle, and the memory limit, above which the kernel kills a process
)

func (m measurement) report(rows []row) error {
	fmt.Println()
	out := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "agent\tmeasured\tbudget\t")
	var failures []string
	for _, r := range rows {
		budget, verdict := "-", ""
		if r.budget > 0 {
			budget, verdict = fmt.Sprintf("%g %s", r.budget, r.unit), "ok"
			if r.value > r.budget {
				verdict = "OVER"
			}
			if r.margin > 0 && r.value > r.budget*r.margin {
				failures = append(failures, r.what)
			}
		}
		fmt.Fprintf(out, "%s\t%.4g %s\t%s\t%s\n", r.what, r.value, r.unit, budget, verdict)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if len(failures) > 0 {
		return errors.New("clearly over budget: " + strings.Join(failures, "; "))
	}
	return nil
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }

// Command compare measures this project and other ways to redirect a pod's traffic to Istio's sidecar, in one cluster,
// with the same pods. scripts/compare.sh starts it.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/conformance/internal/markers"
	"github.com/istio-pod-network/controller/conformance/internal/mesh"
)

const help = `usage: compare [-quick] [-rounds N] [-single N] [-full N] [-faults] [-only NAME,...] [-seed N]
               [-limit DURATION] [-state FILE] [-docs]
       compare -table [-state FILE] [-docs]
  measures the ways to redirect a pod to Istio's sidecar, beside each other, and prints a table. In each round each way
  is installed and removed, in random order, and before the next one it is proven that nothing of it is left.
  -quick      one pod of each, no state: whether all of it works; then Istio CNI with this project beside it, and what
              the operator's tool says of that
  -rounds N   how many rounds (3)
  -single N   single pods of each way and round (7)
  -full N     pods at once, in one fill of each way and round (110); 0: none
  -faults     what each does when something is wrong, in the first round (true)
  -only LIST  ways, of: %s
  -seed N     of the order; a state that is there already has its own
  -limit D    after which no more is begun (85m); the next run goes on
  -state FILE where each measurement goes when it has been made, one JSON object a line; a run that finds some goes on
              after them (dist/compare/state.jsonl)
  -docs       write the table into docs/why.md, too, between its markers
  -table      print the table of the state, and measure nothing
`

// options are the flags.
type options struct {
	quick, table, faults, docs bool
	plan                       plan
	limit                      time.Duration
	only, state                string
	seed                       uint64
}

// plan is how much is measured.
type plan struct{ rounds, single, full int }

func main() {
	o, err := parse(os.Args[1:])
	if err == nil && o.table {
		err = o.print()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(2)
	}
	if !o.table {
		os.Exit(cluster.Main(o, prepare, cluster.Current, cluster.Debian))
	}
}

func parse(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("compare", flag.ExitOnError)
	f.Usage = func() { fmt.Fprintf(os.Stderr, help, strings.Join(keys(ways), ", ")) }
	f.BoolVar(&o.quick, "quick", false, "")
	f.IntVar(&o.plan.rounds, "rounds", 3, "")
	f.IntVar(&o.plan.single, "single", 7, "")
	f.IntVar(&o.plan.full, "full", 110, "")
	f.BoolVar(&o.faults, "faults", true, "")
	f.DurationVar(&o.limit, "limit", 85*time.Minute, "")
	f.StringVar(&o.only, "only", strings.Join(keys(ways), ","), "")
	f.Uint64Var(&o.seed, "seed", rand.Uint64N(1_000_000), "")
	f.StringVar(&o.state, "state", filepath.Join(build.Root(), "dist", "compare", "state.jsonl"), "")
	f.BoolVar(&o.docs, "docs", false, "")
	f.BoolVar(&o.table, "table", false, "")
	_ = f.Parse(args) // it exits on an error
	if f.NArg() > 0 {
		return o, fmt.Errorf("unknown argument %q; see -help", f.Arg(0))
	}
	if o.quick {
		o.plan, o.faults, o.state = plan{rounds: 1, single: 1}, false, ""
	}
	for name, value := range map[string]int{"rounds": o.plan.rounds, "single": o.plan.single} {
		if value < 1 {
			return o, fmt.Errorf("-%s: invalid value %d; valid: a whole number from 1 on", name, value)
		}
	}
	if o.plan.full < 0 {
		return o, fmt.Errorf("-full: invalid value %d; valid: a whole number from 0 on", o.plan.full)
	}
	_, err := o.ways()
	return o, err
}

// ways returns the chosen ways.
func (o options) ways() (chosen []way, err error) {
	for key := range strings.SplitSeq(o.only, ",") {
		w, err := wayOf(key)
		if err != nil {
			return nil, fmt.Errorf("-only: %w", err)
		}
		chosen = append(chosen, w)
	}
	return chosen, nil
}

func prepare(bin string) error {
	tool := func(bin string) error { return build.Product(bin, "./agent/istio-pod-networkctl") }
	for _, step := range []func(string) error{cluster.Build, mesh.Build, mesh.BuildCNI, tool} {
		if err := step(bin); err != nil {
			return err
		}
	}
	return nil
}

// Run runs in the namespaces of the cluster.
func (o options) Run() int {
	if err := o.run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		return 1
	}
	if err := o.print(); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		return 1
	}
	return 0
}

func (o options) run(ctx context.Context) error {
	chosen, err := o.ways()
	if err != nil {
		return err
	}
	s, err := openState(o.state, o.seed)
	if err != nil {
		return err
	}
	b, err := newBench(ctx, isolated.BinDir())
	if b != nil {
		defer b.cluster.Stop()
	}
	if err == nil {
		b.faults, b.until = o.faults, began.Add(o.limit)
		err = b.rounds(ctx, o.plan, chosen, s)
		if o.quick && err == nil {
			err = b.beside(ctx)
		}
	}
	if err != nil && b != nil {
		keepLogs(b.cluster)
	}
	if o.quick && err == nil {
		fmt.Print(text(s.all))
	}
	return err
}

// print prints the table of a state, and writes it into the page if that is asked for.
func (o options) print() error {
	if o.quick {
		return nil
	}
	all, err := readState(o.state)
	if err != nil {
		return err
	}
	fmt.Print(text(all))
	if !o.docs {
		return nil
	}
	path := docsPage()
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text, err := markers.Insert(string(page), docsCommand, markdown(all))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// docsCommand is the command that the page names as the source of the tables.
const docsCommand = "make compare DOCS=1"

// docsPage returns the path of the page with the tables.
func docsPage() string { return filepath.Join(build.Root(), "docs", "why.md") }

// keepLogs copies logs that may explain a failure to a directory that outlives the cluster.
func keepLogs(c *cluster.Cluster) {
	dir := filepath.Join(build.Root(), "dist", "compare", "logs")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return
	}
	for _, path := range c.Logs() {
		if data, err := os.ReadFile(path); err == nil {
			_ = os.WriteFile(filepath.Join(dir, filepath.Base(path)), data, 0o644)
		}
	}
	fmt.Fprintln(os.Stderr, "compare: the logs of all programs are in", dir)
}

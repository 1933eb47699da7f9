// Command scale measures what the agents of many nodes cost a cluster. kube-apiserver, etcd and the agents are real.
// Nodes and pods are only objects, and the test writes records as the plugin does. From several sizes it finds how each
// figure grows with the number of nodes, and what that means for 1,000 and 5,000 nodes. It fails if one grows faster
// than the cluster, or if an agent writes more than it should. It needs root: it runs in namespaces of its own. On the
// machine it changes only the limit of inotify instances, and restores that.
package main

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/apiserver"
	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/conformance/internal/sysctls"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

func main() {
	o, sizes := options{}, "25,50,100,200"
	flag.StringVar(&sizes, "nodes", sizes, "numbers of nodes, one after the other; the smallest first")
	flag.IntVar(&o.perNode, "pods", 30, "pods on a node")
	flag.IntVar(&o.meshed, "mesh", 25, "of them in the mesh")
	flag.IntVar(&o.namespaces, "namespaces", 2, "namespaces for each node")
	flag.IntVar(&o.each, "each", 50, "agents of a process")
	flag.IntVar(&o.churn, "churn", 600, "pods that are replaced with and without agents, to compare")
	flag.IntVar(&o.rate, "rate", 100, "pods a second that are replaced")
	flag.DurationVar(&o.idle, "idle", 30*time.Second, "how long nothing happens, with agents and without")
	flag.StringVar(&o.selection, "selection", string(redirect.SelectInjected),
		"of the plugin's entry: injected or annotated")
	flag.BoolVar(&o.apiPriority, "api-priority", true, "a level of the agents' own at the API server, as by the chart's "+
		"apiPriority.enabled")
	m := run{options: o}
	flag.StringVar(&m.state.path, "state", filepath.Join(build.Root(), "dist", "scale", "state.jsonl"),
		"file with what was measured, from which a run that was ended goes on; empty: none")
	table := flag.Bool("table", false, "measure nothing, and print the table of what the file has")
	flag.BoolVar(&m.docs, "docs", false, "write the table into docs/performance.md, too, between its markers")
	flag.Parse()
	m.options, m.settings = o, o.settings()
	if err := errors.Join(o.check(), noMore(flag.Args())); err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(2)
	}
	for text := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || len(m.sizes) > 0 && n <= m.sizes[len(m.sizes)-1] {
			fmt.Fprintf(os.Stderr, "scale: --nodes: invalid value %q\nValid: numbers of 1 or more, each larger than the one "+
				"before.\n", sizes)
			os.Exit(2)
		}
		m.sizes = append(m.sizes, n)
	}
	if *table {
		os.Exit(status(m.table()))
	}
	os.Exit(m.main())
}

// check returns an error about the first option that cannot be measured.
func (o options) check() error {
	for _, number := range []struct {
		name               string
		value, least, most int
	}{
		{"pods", o.perNode, 1, math.MaxInt}, {"mesh", o.meshed, 1, o.perNode}, {"namespaces", o.namespaces, 1, math.MaxInt},
		{"each", o.each, 1, math.MaxInt}, {"churn", o.churn, 1, math.MaxInt}, {"rate", o.rate, 1, int(time.Second)},
	} {
		if number.value < number.least || number.value > number.most {
			valid := fmt.Sprintf("%d or more", number.least)
			if number.most < math.MaxInt {
				valid = fmt.Sprintf("%d to %d", number.least, number.most)
			}
			return fmt.Errorf("--%s: invalid value %d\nValid: %s", number.name, number.value, valid)
		}
	}
	if o.idle <= 0 {
		return fmt.Errorf("--idle: invalid value %v\nValid: a duration of more than 0, such as 30s", o.idle)
	}
	_, err := redirect.ParseSelection(o.selection)
	return err
}

// noMore returns an error if there are arguments beside the flags.
func noMore(args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q\nValid: flags only, see --help", args[0])
	}
	return nil
}

// status returns the exit status.
func status(err error) int {
	if err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		return 1
	}
	return 0
}

// run is a run of the command.
type run struct {
	options
	settings settings
	sizes    []int
	state    state
	docs     bool
}

// main raises the limit of inotify instances during the run, and returns the exit status.
func (r run) main() int {
	if isolated.BinDir() == "" {
		release, err := sysctls.Keep()
		if err != nil {
			return status(err)
		}
		defer func() { _ = status(release()) }()
	}
	return isolated.Main(r, prepare)
}

func prepare(bin string) error {
	if err := build.Link(bin, apiserver.Programs...); err != nil {
		return err
	}
	return build.Product(bin, "./plugin/istio-pod-network", "./internal/nodes")
}

// Run measures, prints the table, and returns the exit status.
func (r run) Run() int { return status(r.all()) }

func (r run) all() error {
	if err := addCounters(); err != nil {
		return err
	}
	bin := isolated.BinDir()
	var err error
	if r.settings.Programs, err = hashOf("/proc/self/exe", filepath.Join(bin, "nodes"),
		filepath.Join(bin, "istio-pod-network")); err != nil {
		return err
	}
	sizes, err := r.state.open(begin{r.settings, r.sizes})
	if err != nil {
		return err
	}
	if len(sizes) > 0 {
		progress("the first %d sizes are in %s", len(sizes), r.state.path)
	}
	for _, nodes := range r.sizes[len(sizes):] {
		figures, err := r.one(nodes)
		sizes = append(sizes, size{nodes, figures})
		if err != nil {
			return errors.Join(fmt.Errorf("with %d nodes: %w", nodes, err), r.print(sizes))
		}
		if err := r.state.add(sizes[len(sizes)-1]); err != nil {
			return err
		}
		if nodes != r.sizes[len(r.sizes)-1] {
			_ = r.print(sizes) // the last table shows the problem
		}
	}
	if r.docs {
		if err := r.write(sizes); err != nil {
			return err
		}
	}
	return r.print(sizes)
}

// print prints the table of what was measured so far.
func (r run) print(sizes []size) error {
	fmt.Printf("\n%s\n\n", r.settings)
	return report(os.Stdout, sizes)
}

// one measures one size, on a cluster of its own. It returns its figures with an error, too.
func (r run) one(nodes int) ([]figure, error) {
	dir, err := os.MkdirTemp("", "scale")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	began := time.Now()
	c, err := newCluster(dir, nodes, r.options)
	if err != nil {
		return nil, err
	}
	defer c.stop()
	figures, err := measure(c)
	if err != nil {
		return figures, fmt.Errorf("%w\nlog of the agents:\n%s", err, c.fleet.tail())
	}
	progress("%d nodes took %v", nodes, time.Since(began).Round(time.Second))
	return figures, nil
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, "scale: "+format+"\n", args...) }

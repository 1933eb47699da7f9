// Command plugin measures the cost of one CNI call of the plugin, and of a plugin that only prints prevResult. It
// prints the ratios with the budgets of the design. It needs root: it runs in namespaces of its own.
//
// All cases run in turn in one process, so that a busy machine slows all of them in the same way: ratios can be
// compared, times cannot. It fails if a budget is exceeded by a clear margin in each of three attempts, except for
// times that depend on the kernel.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/istio-pod-network/controller/conformance/internal/isolated"
)

// options are the flags.
type options struct {
	n        int      // measured runs of each case
	bursts   []int    // calls at once, one size for each kind of burst
	rounds   int      // measured bursts
	backends []string // backends with which a mesh ADD is measured
	plugin   string   // a prebuilt plugin; empty builds ./plugin
	aa       bool     // measure echo in the plugin's place
	json     bool
}

func main() {
	opts, err := parseFlags()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	os.Exit(isolated.Main(opts, opts.build))
}

func parseFlags() (options, error) {
	var opts options
	var backends, bursts string
	flag.IntVar(&opts.n, "n", 60, "measured runs of each case")
	flag.StringVar(&bursts, "bursts", "16", "calls at once in the burst cases, comma separated; those of more than 16 "+
		"with the first backend alone")
	flag.IntVar(&opts.rounds, "rounds", 0, "measured bursts of each size (default n/10, at least 3)")
	flag.StringVar(&backends, "backends", "nftables,iptables", "backends of the mesh ADD, comma separated")
	flag.StringVar(&opts.plugin, "plugin", "", "measure this binary instead of building ./plugin")
	flag.BoolVar(&opts.aa, "calibrate", false, "measure echo in the plugin's place: every ratio must come out near 1")
	flag.BoolVar(&opts.json, "json", false, "print JSON")
	flag.Parse()
	opts.backends = strings.Split(backends, ",")
	if opts.rounds == 0 {
		opts.rounds = max(3, opts.n/10)
	}
	for text := range strings.SplitSeq(bursts, ",") {
		size, err := strconv.Atoi(text)
		if err != nil || size < 1 {
			return opts, fmt.Errorf("--bursts: invalid value %q: want whole numbers from 1 on, separated by commas", text)
		}
		opts.bursts = append(opts.bursts, size)
	}
	if opts.n < 1 || opts.rounds < 1 {
		return opts, errors.New("--n and --rounds must be positive")
	}
	return opts, nil
}

// Run measures, prints the report, and returns the exit status.
func (opts options) Run() int {
	if err := opts.measure(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}

// attempts is how often everything is measured: a budget fails only if it is exceeded each time.
const attempts = 3

func (opts options) measure() error {
	node, err := newNode(isolated.BinDir())
	if err != nil {
		return err
	}
	node.verify = !opts.aa
	var failures []string
	for attempt := range attempts {
		found, err := opts.once(node)
		if err != nil {
			return err
		}
		if attempt > 0 {
			found = slices.DeleteFunc(found, func(f string) bool { return !slices.Contains(failures, f) })
		}
		if failures = found; len(failures) == 0 {
			return nil
		}
		fmt.Fprintln(os.Stderr, "bench: clearly over budget:", strings.Join(failures, "; "))
	}
	return fmt.Errorf("over budget %d times", attempts)
}

// once measures everything once and prints it.
func (opts options) once(node *node) (failures []string, err error) {
	rows, err := runAll(node, opts)
	if err != nil {
		return nil, err
	}
	sizes, err := binarySizes(node)
	if err != nil {
		return nil, err
	}
	rep := newReport(opts, rows, sizes)
	if opts.json {
		err = rep.writeJSON(os.Stdout)
	} else {
		err = rep.writeTable(os.Stdout)
	}
	if err != nil {
		return nil, err
	}
	return rep.verdict()
}

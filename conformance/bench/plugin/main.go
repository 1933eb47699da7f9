// Command bench measures what one CNI call of the plugin costs, beside a plugin that only echoes prevResult, and prints
// the ratios next to the budgets of the design. It needs root and a kernel with network namespaces.
//
// All cases run interleaved in one process, so that a busy machine slows all of them alike: ratios compare, times do not.
// The measuring process lives in a mount and a network namespace of its own; namespaces, mounts and the agent's socket
// go with it however it ends, and its parent removes the temporary directory.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
)

// workDirEnv carries the temporary directory to the measuring process, and by being set says that this is it.
const workDirEnv = "ISTIO_POD_NETWORK_BENCH_DIR"

// options are the command line.
type options struct {
	n        int      // measured runs of each case
	burst    int      // calls at once
	rounds   int      // measured bursts
	backends []string // backends a mesh ADD is measured with
	plugin   string   // a prebuilt plugin; empty builds ./plugin
	aa       bool     // measure echo in the plugin's place
	json     bool
	strict   bool
}

func main() {
	opts, err := parseFlags()
	if err == nil {
		if dir := os.Getenv(workDirEnv); dir != "" {
			err = measure(opts, dir)
		} else {
			err = supervise(opts)
		}
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		os.Exit(exit.ExitCode()) // the measuring process has told why
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parseFlags() (options, error) {
	var opts options
	var backends string
	flag.IntVar(&opts.n, "n", 60, "measured runs of each case")
	flag.IntVar(&opts.burst, "burst", 16, "calls at once in the burst cases")
	flag.IntVar(&opts.rounds, "rounds", 0, "measured bursts (default n/10, at least 3)")
	flag.StringVar(&backends, "backends", "nftables,iptables", "backends of the mesh ADD, comma separated")
	flag.StringVar(&opts.plugin, "plugin", "", "measure this binary instead of building ./plugin")
	flag.BoolVar(&opts.aa, "calibrate", false, "measure echo in the plugin's place: every ratio must come out near 1")
	flag.BoolVar(&opts.json, "json", false, "print JSON")
	flag.BoolVar(&opts.strict, "strict", false, "exit 1 when a budget is exceeded")
	flag.Parse()
	opts.backends = strings.Split(backends, ",")
	if opts.rounds == 0 {
		opts.rounds = max(3, opts.n/10)
	}
	if opts.n < 1 || opts.burst < 1 || opts.rounds < 1 {
		return opts, errors.New("-n, -burst and -rounds must be positive")
	}
	return opts, nil
}

// supervise builds the binaries, runs the measuring process and removes what is left of it.
func supervise(opts options) error {
	if os.Geteuid() != 0 {
		return errors.New("needs root: it makes network namespaces")
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	dir, err := os.MkdirTemp("", "istio-pod-network-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := buildAll(dir, opts); err != nil {
		return err
	}
	runtime.LockOSThread() // Pdeathsig is sent when the *thread* that started the child ends
	child := exec.Command("/proc/self/exe", os.Args[1:]...)
	child.Env = append(os.Environ(), workDirEnv+"="+dir)
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL,
	}
	if err := child.Start(); err != nil {
		return fmt.Errorf("starting the measuring process: %w", err)
	}
	done := make(chan struct{})
	go func() {
		select {
		case <-interrupted:
			_ = child.Process.Kill()
		case <-done:
		}
	}()
	err = child.Wait()
	close(done)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && !exit.Exited() {
		return errors.New("interrupted")
	}
	return err
}

// measure is the measuring process: set up the node, run all cases, report.
func measure(opts options, dir string) error {
	node, err := newNode(dir)
	if err != nil {
		return err
	}
	node.verify = !opts.aa
	rows, err := runAll(node, opts)
	if err != nil {
		return err
	}
	sizes, err := binarySizes(node)
	if err != nil {
		return err
	}
	rep := newReport(opts, rows, sizes)
	if opts.json {
		err = rep.writeJSON(os.Stdout)
	} else {
		err = rep.writeTable(os.Stdout)
	}
	if err != nil {
		return err
	}
	return rep.verdict(opts.strict)
}

// Command demo shows the life of one pod of the mesh to a person: its network is made and taken away by the real
// cnitool, real packets are sent, and every one is shown with where it landed and why. scripts/demo.sh (`make demo`)
// builds what it needs and runs it as root, with the directories of the plugins in CNI_PATH.
//
// It works in a network and a mount namespace of its own, so that whatever happens to it, nothing stays behind.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/istio-pod-network/controller/internal/testnet"
)

// onNodeEnv is set in the process that has namespaces of its own.
const onNodeEnv = "ISTIO_POD_NETWORK_DEMO_NODE"

// options are the command line.
type options struct {
	backend, mode string
	families      []testnet.Family
	dns, noColor  bool
}

func main() {
	if os.Getenv(onNodeEnv) == "" {
		os.Exit(supervise())
	}
	opts, err := parse(os.Args[1:])
	if err == nil {
		err = show(opts)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	var opts options
	var families string
	flags := flag.NewFlagSet("demo", flag.ExitOnError)
	flags.StringVar(&opts.backend, "backend", "auto", "auto, nftables, iptables, iptables-nft or iptables-legacy")
	flags.StringVar(&opts.mode, "mode", "REDIRECT", "REDIRECT or TPROXY")
	flags.StringVar(&families, "families", "46", "4, 6 or 46")
	flags.BoolVar(&opts.dns, "dns", false, "capture DNS as well")
	flags.BoolVar(&opts.noColor, "no-color", false, "plain text, also on a terminal")
	if err := flags.Parse(args); err != nil {
		return opts, err
	}
	known := map[string][]testnet.Family{"4": {testnet.IPv4}, "6": {testnet.IPv6}, "46": {testnet.IPv4, testnet.IPv6}}
	if opts.families = known[families]; opts.families == nil {
		return opts, fmt.Errorf("--families: invalid value %q; valid: 4, 6 or 46", families)
	}
	return opts, nil
}

// supervise runs the demo in new namespaces and returns its exit status.
func supervise() int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "demo: needs root, because it makes network namespaces: sudo make demo")
		return 1
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	runtime.LockOSThread() // Pdeathsig is sent when the *thread* that started the child ends
	child := exec.Command("/proc/self/exe", os.Args[1:]...)
	child.Env = append(os.Environ(), onNodeEnv+"=1")
	child.Stdout, child.Stderr = os.Stdout, os.Stderr
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL,
		Setpgid: true, // Ctrl-C comes to this process alone, which then ends the whole group
	}
	if err := child.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "demo: making namespaces:", err)
		if errors.Is(err, syscall.EPERM) {
			fmt.Fprintln(os.Stderr, "This root may not do that; inside a container, run the container with --privileged.")
		}
		return 1
	}
	ended := make(chan struct{})
	go func() {
		_ = child.Wait() // the exit code says it all
		close(ended)
	}()
	select {
	case <-interrupted:
		_ = syscall.Kill(-child.Process.Pid, syscall.SIGKILL)
		<-ended
		fmt.Fprintln(os.Stderr, "\ndemo: interrupted; all of it was in namespaces of its own, which are gone")
		return 130
	case <-ended:
		return child.ProcessState.ExitCode()
	}
}

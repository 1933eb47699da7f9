// Package flows is the program istio-pod-network-flows. It proves by real connections that a pod's traffic goes through
// its sidecar. In one pod it runs as the app and as the stand-in of the sidecar. With a peer, a pod outside the mesh,
// it proves more. Another pod outside the mesh makes the same flows as the control. It needs no privilege and no other
// file of its image.
package flows

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/istio-pod-network/controller/internal/program"
	"github.com/istio-pod-network/controller/internal/program/flags"
	"github.com/istio-pod-network/controller/internal/standin"
	"github.com/istio-pod-network/controller/plugin/flows/report"
)

const name = "istio-pod-network-flows"

// options are the values of the command line.
type options struct {
	name     string
	peers    addresses
	families string
	outside  bool
	dns      bool
	timeout  time.Duration
	quits    bool
	proxyUID int
	sidecar  standin.Sidecar
	envoy    bool   // whether the sidecar is Istio's
	mtls     string // the address and port of an app in the mesh
	asks     string // the name in DNS queries
	identity string // how the SPIFFE ID of every pod in the mesh ends
	seal     standin.Seal
}

// addresses has at most one address of each family.
type addresses []netip.Addr

// process is one run of the program.
type process struct {
	program.Program
	mu sync.Mutex // for what is printed
}

// Main runs the program with the arguments and standard streams of this process. It returns the exit status: 0 if all
// flows are well, 1 if not, and 2 for wrong usage.
func Main() int {
	p := &process{Program: program.New(name, help)}
	args := os.Args[1:]
	if p.Answer(args) {
		return program.ExitDone
	}
	commands := map[string]func(options) (bool, error){
		"sidecar": p.sidecar, "app": p.app, "peer": p.peer, "serve": p.serve,
	}
	if len(args) == 0 || commands[args[0]] == nil {
		return p.Misused(invalid.Text("command", strings.Join(args[:min(1, len(args))], ""), "", "app, sidecar, peer, serve"))
	}
	seal := standin.Seal(os.Getenv(report.Secret))
	o := options{name: "app", families: "all", timeout: time.Minute, proxyUID: 1337, seal: seal,
		sidecar: standin.Sidecar{Outbound: 15001, Inbound: 15006, DNS: 15053, Seal: seal}}
	if status, ended := flags.Parse(p.Program, o.flags(), "", args[1:]); ended {
		return status
	}
	well, err := commands[args[0]](o)
	switch {
	case err != nil:
		fmt.Fprintf(p.Stderr, "%s: %v\n", name, err)
		return program.ExitFailed
	case !well:
		return program.ExitFailed
	}
	return program.ExitDone
}

func (o *options) flags() *flag.FlagSet {
	set := flag.NewFlagSet("", flag.ContinueOnError)
	add := func(name, valid string, accept func(string) bool) { flags.Func(set, name, "", valid, accept) }
	add("name", "a name", func(v string) bool { o.name = v; return v != "" && !strings.ContainsAny(v, "\n\r") })
	add("peer", "one IP address of each family, with a comma between", func(v string) bool {
		var known bool
		o.peers, known = parseAddresses(v)
		return known
	})
	add("families", "all, proxy", func(v string) bool { o.families = v; return v == "all" || v == "proxy" })
	set.BoolVar(&o.outside, "outside", false, "")
	set.BoolVar(&o.dns, "dns", false, "")
	set.BoolVar(&o.quits, "quit", false, "")
	set.BoolVar(&o.envoy, "envoy", false, "")
	add("mtls", "an IP address and a port, as 10.96.0.10:80", func(v string) bool {
		_, err := netip.ParseAddrPort(v)
		o.mtls = v
		return err == nil
	})
	add("ask", "a DNS name", func(v string) bool { o.asks = v; return v != "" && len(v) < 200 })
	add("identity", "the end of a SPIFFE ID", func(v string) bool { o.identity = v; return strings.HasPrefix(v, "/") })
	add("timeout", "a duration of more than zero, such as 60s", func(v string) (ok bool) {
		var err error
		o.timeout, err = time.ParseDuration(v)
		return err == nil && o.timeout > 0
	})
	add("proxy-uid", "a user ID from 1 to 4294967294", func(v string) bool {
		n, err := strconv.ParseUint(v, 10, 32)
		o.proxyUID = int(n)
		return err == nil && n > 0 && n < 1<<32-1
	})
	port := func(name string, target *uint16) {
		add(name, "a port from 1 to 65535", func(v string) bool {
			n, err := strconv.ParseUint(v, 10, 16)
			*target = uint16(n)
			return err == nil && n > 0
		})
	}
	port("outbound-port", &o.sidecar.Outbound)
	port("inbound-port", &o.sidecar.Inbound)
	port("dns-port", &o.sidecar.DNS)
	return set
}

func parseAddresses(text string) (all addresses, ok bool) {
	for part := range strings.SplitSeq(text, ",") {
		address, err := netip.ParseAddr(part)
		same := func(a netip.Addr) bool { return a.Is4() == address.Is4() }
		if err != nil || address.Is4In6() || slices.ContainsFunc(all, same) {
			return nil, false
		}
		all = append(all, address)
	}
	return all, true
}

// peer serves until the process is told to end.
func (p *process) peer(o options) (bool, error) {
	ended, failed := ending(), make(chan error, 1)
	if o.seal != "" {
		p.println(report.Sealed)
	}
	err := standin.StartPeer(o.seal, p.reached(), func(err error) { tell(failed, err) })
	if err != nil {
		return false, err
	}
	select {
	case <-ended:
		return true, nil
	case err := <-failed:
		return false, err
	}
}

// sidecar makes the flows of a sidecar, and serves until the process is told to end or, with --quit, its app ends it.
func (p *process) sidecar(o options) (bool, error) {
	ended, failed, quit := ending(), make(chan error, 1), make(chan struct{})
	s := o.sidecar
	if o.quits {
		s.Quit = sync.OnceFunc(func() { close(quit) })
	}
	if err := s.Start(func(err error) { tell(failed, err) }); err != nil {
		return false, err
	}
	well := true
	if os.Geteuid() == o.proxyUID {
		f, err := p.flowsOf(o)
		if err != nil {
			return false, err
		}
		well = f.asProxy()
	}
	select {
	case <-ended:
	case <-quit:
	case err := <-failed:
		return false, err
	}
	return well, nil
}

// app serves, makes the flows of an app, and ends.
func (p *process) app(o options) (well bool, err error) {
	ended, done := ending(), make(chan struct{})
	go func() {
		defer close(done)
		well, err = p.makeAppsFlows(o)
	}()
	select {
	case <-ended:
		return false, fmt.Errorf("ended before all flows were made")
	case <-done:
		return well, err
	}
}

// ending returns a channel for SIGTERM and SIGINT. The kernel does not deliver them to process 1 of a container without
// a handler.
func ending() <-chan os.Signal {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	return signals
}

// tell sends the first error and drops all others.
func tell(to chan<- error, err error) {
	select {
	case to <- err:
	default:
	}
}

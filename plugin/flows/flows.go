package flows

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/internal/escape"
	"github.com/istio-pod-network/controller/internal/standin"
	"github.com/istio-pod-network/controller/plugin/flows/report"
)

// Ports on which the app listens. The pod excludes excludedAppPort from inbound capture.
const (
	appPort         = 8080
	excludedAppPort = report.ExcludedInboundPort
)

// nobody has an address of each family, by whether it is IPv6, that no host has: 192.0.2.0/24 and 2001:db8::/32 are
// reserved for documentation (RFC 5737, RFC 3849).
var nobody = map[bool]netip.Addr{
	false: netip.MustParseAddr("192.0.2.1"), true: netip.MustParseAddr("2001:db8::1"),
}

// tries is how often a call without an answer, and each attempt, is repeated: a busy node may lose a packet.
const tries = 3

// flows makes the flows of one pod and prints their results.
type flows struct {
	options
	own   addresses // of the pod
	print func(report.Result)
	mu    sync.Mutex
	ill   bool
	knows time.Time // when Istio's sidecar must have received its configuration
}

func (p *process) flowsOf(o options) (*flows, error) {
	own, err := ownAddresses()
	if err != nil {
		return nil, err
	}
	if len(own) == 0 {
		return nil, errors.New("the pod has no global address on any interface but lo")
	}
	return &flows{options: o, own: own, print: func(r report.Result) { p.println(r.Line()) }}, nil
}

// ownAddresses returns the first global unicast address of each family on an interface other than lo.
func ownAddresses() (own addresses, err error) {
	nics, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("listing the interfaces: %w", err)
	}
	for _, nic := range nics {
		addrs, err := nic.Addrs()
		if err != nil {
			return nil, fmt.Errorf("listing the addresses of %q: %w", nic.Name, err)
		}
		for _, addr := range addrs {
			prefix, ok := addr.(*net.IPNet)
			if !ok || nic.Flags&net.FlagLoopback != 0 || !prefix.IP.IsGlobalUnicast() {
				continue
			}
			address, _ := netip.AddrFromSlice(prefix.IP)
			address = address.Unmap()
			if !slices.ContainsFunc(own, func(a netip.Addr) bool { return a.Is4() == address.Is4() }) {
				own = append(own, address)
			}
		}
	}
	return own, nil
}

// println prints a line to the log.
func (p *process) println(args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintln(p.Stdout, args...)
}

// reached returns a function that prints who has reached the peer, once for each caller.
func (p *process) reached() func(caller string) {
	var seen sync.Map
	return func(caller string) {
		if _, again := seen.LoadOrStore(caller, true); !again {
			p.println(report.Reached + caller)
		}
	}
}

// makeAppsFlows starts the app's servers, waits for the sidecar, and makes the flows.
func (p *process) makeAppsFlows(o options) (bool, error) {
	f, err := p.flowsOf(o)
	if err != nil {
		return false, err
	}
	if err := serveApp(o.seal); err != nil {
		return false, err
	}
	if !o.outside {
		if err := awaitSidecar(o.timeout); err != nil {
			return false, err
		}
	}
	if o.envoy {
		return f.byEnvoy()
	}
	well, err := f.asApp()
	if o.quits && !o.outside {
		err = errors.Join(err, standin.Quit())
	}
	return well, err
}

// serveApp starts the app's servers in the background.
func serveApp(seal standin.Seal) error {
	for _, port := range []uint16{appPort, excludedAppPort} {
		l, err := standin.Listen(port, false)
		if err != nil {
			return err
		}
		go func() { _ = standin.ServeApp(l, seal) }()
	}
	return nil
}

// awaitSidecar waits until the sidecar is ready. It asks on lo, which is not redirected.
func awaitSidecar(patience time.Duration) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if standin.Ready() {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the sidecar is not ready within %s", patience)
		}
	}
}

// captured reports whether the rules redirect what this pod sends to the address.
func (f *flows) captured(to netip.Addr) bool {
	return !f.outside && (f.families == "all" || len(f.own) == 1 || to.Is4())
}

// asApp makes the flows of an app. It returns false if any of them fails.
func (f *flows) asApp() (bool, error) {
	if len(f.peers) == 0 {
		for _, own := range f.own {
			if to := nobody[own.Is6()]; f.captured(to) {
				f.toSidecar(to, 1)
			}
		}
		return !f.ill, nil
	}
	var all sync.WaitGroup
	err := f.withPeers(&all, func(peer netip.Addr, asker *standin.Asker) {
		f.toPeer(peer)
		f.fromPeer(asker)
	})
	if err != nil {
		return false, err
	}
	all.Wait()
	return !f.ill, nil
}

// withPeers makes the given flows with each peer, and then the attempts to get around the sidecar. The peers run
// concurrently, and all waits for them.
func (f *flows) withPeers(all *sync.WaitGroup, flows func(peer netip.Addr, asker *standin.Asker)) error {
	for _, peer := range f.peers {
		asker, err := standin.NewAsker(peer, f.seal)
		if err != nil {
			return err
		}
		all.Go(func() {
			flows(peer, asker)
			f.escapes(peer, asker)
		})
	}
	return nil
}

// toSidecar calls an address that nobody has.
func (f *flows) toSidecar(to netip.Addr, hops int) {
	f.call(report.Outbound, "tcp", netip.AddrPortFrom(to, standin.PeerPort), standin.Outbound, hops)
	if f.dns {
		f.call(report.DNS, "udp", netip.AddrPortFrom(to, standin.DNSPort), standin.DNS, hops)
		f.call(report.DNSOverTCP, "tcp", netip.AddrPortFrom(to, standin.DNSPort), standin.DNS, hops)
	}
}

// toPeer makes the calls to the peer.
func (f *flows) toPeer(peer netip.Addr) {
	if f.captured(peer) {
		f.toSidecar(peer, 0)
	} else {
		f.call(report.Outbound, "tcp", netip.AddrPortFrom(peer, standin.PeerPort), standin.Peer, 0)
		if f.dns {
			f.call(report.DNS, "udp", netip.AddrPortFrom(peer, standin.DNSPort), standin.Peer, 0)
			f.call(report.DNSOverTCP, "tcp", netip.AddrPortFrom(peer, standin.DNSPort), standin.Peer, 0)
		}
	}
	f.call(report.ExcludedOutbound, "tcp", netip.AddrPortFrom(peer, report.ExcludedOutboundPort), standin.Peer, 0)
}

// fromPeer asks the peer to call the pod.
func (f *flows) fromPeer(asker *standin.Asker) {
	for _, port := range []uint16{appPort, excludedAppPort} {
		own := netip.AddrPortFrom(asker.Own(), port)
		r := result(report.Inbound, own, standin.App)
		switch {
		case port == excludedAppPort:
			r.Flow = report.ExcludedInbound
		case f.captured(own.Addr()):
			r.Want = standin.Inbound
		}
		f.try(r, func() (string, error) { return asker.Ask(fmt.Sprint(standin.Dial, " ", own, " ", own)) })
	}
}

// asProxy makes the flows of a sidecar. It returns false if any of them fails.
func (f *flows) asProxy() bool {
	for _, peer := range f.peers {
		f.call(report.ProxyOutbound, "tcp", netip.AddrPortFrom(peer, standin.PeerPort), standin.Peer, 0)
	}
	for _, own := range f.own {
		if f.captured(own) {
			f.call(report.ProxyInbound, "tcp", netip.AddrPortFrom(own, appPort), standin.Inbound, 0)
		}
	}
	return !f.ill
}

// call makes a call that want has to answer.
func (f *flows) call(flow, network string, to netip.AddrPort, want string, hops int) {
	family := map[bool]string{true: "4", false: "6"}[to.Addr().Is4()]
	r := result(flow, to, want)
	c := standin.Call{Network: network + family, Address: to.String(), Name: r.Caller(f.name), Seal: f.seal, Hops: hops}
	f.try(r, c.Make)
}

// result returns the result of a flow that has not been made yet.
func result(flow string, to netip.AddrPort, want string) report.Result {
	family := map[bool]string{true: "IPv4", false: "IPv6"}[to.Addr().Is4()]
	return report.Result{Flow: flow, Family: family, To: to.String(), Want: want}
}

// try repeats the call until it is answered, and prints the result.
func (f *flows) try(r report.Result, call func() (string, error)) {
	for range tries {
		answer, err := call()
		r.Got, r.Error = answer, ""
		if err != nil {
			if r.Got, r.Error = strangerIn(err), oneLine(err); r.Got != "" {
				break
			}
			continue
		}
		r.Well = isFrom(answer, r.Want, r.To)
		break
	}
	f.say(r)
}

// strangerIn returns report.Stranger if err says that a stranger has answered, and "" otherwise.
func strangerIn(err error) string {
	if errors.Is(err, standin.ErrStranger) {
		return report.Stranger
	}
	return ""
}

// isFrom reports whether the answer is from who. A stand-in also answers with the address that was called; it must be
// to.
func isFrom(answer, who, to string) bool {
	name, asked, says := strings.Cut(answer, " ")
	return name == who && (!says || asked == to)
}

// escapes makes every attempt to get around the sidecar, except those that need a second interface, or NET_RAW at the
// peer.
func (f *flows) escapes(peer netip.Addr, asker *standin.Asker) {
	for _, a := range escape.Attempts {
		if !a.In(peer.Is6()) || a.NeedsSecond() || a.Helped || !f.captured(peer) && !f.outside {
			continue
		}
		r := result(report.Escape+a.Name, netip.AddrPortFrom(peer, standin.PeerPort), standin.Peer)
		r.NoControl = a.Loopback
		for range tries {
			answer, err := standin.Attempt(a, asker, netip.AddrPortFrom(peer, standin.PeerPort), r.Caller(f.name))
			r.Got, r.Error, r.Unmade = answer, "", ""
			switch {
			case errors.Is(err, escape.ErrNotMade):
				r.Unmade = oneLine(err)
			case err != nil:
				r.Error = oneLine(err)
			}
			if answer == standin.Peer {
				break
			}
		}
		r.Well = f.outside || r.Got != standin.Peer
		f.say(r)
	}
}

// say prints a result, and notes whether it failed.
func (f *flows) say(r report.Result) {
	f.mu.Lock()
	f.ill = f.ill || !r.Well
	f.mu.Unlock()
	f.print(r)
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

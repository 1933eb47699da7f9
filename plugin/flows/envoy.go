package flows

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/internal/standin"
	"github.com/istio-pod-network/controller/plugin/flows/report"
)

// What is for pods with Istio's own sidecar. It does not say who it is: it is known by what it does. It takes a
// connection to an address that nobody has, has a certificate of the mesh, says whose certificate its caller has, and
// lets nothing out or in that its namespace forbids (REGISTRY_ONLY, STRICT).

// settles is for how long, and learns with what pauses, is tried what a sidecar may not have been told yet.
const (
	settles = 20 * time.Second
	learns  = 500 * time.Millisecond
)

// warmUp is the flow of calls that are made until the sidecar knows what is forbidden. Nobody judges them.
const warmUp = "warm-up"

// serve serves as an app until the process is to end.
func (p *process) serve(o options) (bool, error) {
	ended := ending()
	if err := serveApp(o.seal); err != nil {
		return false, err
	}
	<-ended
	return true, nil
}

// byEnvoy makes the flows of an app beside Istio's own sidecar.
func (f *flows) byEnvoy() (bool, error) {
	f.knows = time.Now().Add(settles)
	var all sync.WaitGroup
	err := f.withPeers(&all, func(peer netip.Addr, asker *standin.Asker) {
		if f.captured(peer) {
			f.throughEnvoy(peer, asker)
		} else {
			f.toPeer(peer)
			f.fromPeer(asker)
		}
	})
	if err != nil {
		return false, err
	}
	if f.mtls != "" {
		all.Go(f.callByMesh)
	}
	all.Wait()
	return !f.ill, nil
}

// throughEnvoy makes the flows of a family that is captured, but for attempts to get around.
func (f *flows) throughEnvoy(peer netip.Addr, asker *standin.Asker) {
	out := netip.AddrPortFrom(nobody[peer.Is6()], standin.PeerPort)
	if f.serves(peer, f.sidecar.Outbound) {
		f.try(result(report.Outbound, out, report.Sidecar), func() (string, error) { return accepted(out) })
	} else {
		f.unserved(result(report.Outbound, out, report.Sidecar))
	}
	f.heldOutbound(peer)
	if f.dns {
		f.queries(netip.AddrPortFrom(out.Addr(), standin.DNSPort))
	}
	f.call(report.ExcludedOutbound, "tcp", netip.AddrPortFrom(peer, report.ExcludedOutboundPort), standin.Peer, 0)

	own := netip.AddrPortFrom(asker.Own(), appPort)
	in := result(report.Inbound, own, report.Sidecar)
	if f.serves(peer, f.sidecar.Inbound) {
		f.settle(in, func() (string, error) {
			who, err := asker.Ask(fmt.Sprint(standin.Identity, " ", own, " ", own))
			return f.known(report.Sidecar, who, err)
		})
	} else {
		f.unserved(in)
	}
	f.heldInbound(asker, own)
	excluded := netip.AddrPortFrom(own.Addr(), excludedAppPort)
	f.try(result(report.ExcludedInbound, excluded, standin.App), func() (string, error) {
		return asker.Ask(fmt.Sprint(standin.Dial, " ", excluded, " ", excluded))
	})
}

// learning waits a moment, unless the sidecar has had the time to be told everything.
func (f *flows) learning() bool {
	if time.Now().After(f.knows) {
		return false
	}
	time.Sleep(learns)
	return true
}

// serves reports whether the sidecar listens at a port in a family: what this pod calls by lo is not redirected.
func (f *flows) serves(family netip.Addr, port uint16) bool {
	lo := map[bool]string{false: "127.0.0.1", true: "::1"}[family.Is6()]
	c, err := net.DialTimeout("tcp", net.JoinHostPort(lo, fmt.Sprint(port)), standin.Patience)
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

// unserved says that a flow could not be made.
func (f *flows) unserved(r report.Result) {
	r.Unmade, r.Well = "the sidecar does not listen in this family", true // it is no fault of the pod's
	f.say(r)
}

// accepted calls an address that nobody has, no further than the node: who accepts is in this pod.
func accepted(to netip.AddrPort) (string, error) {
	_, err := standin.Call{Network: "tcp", Address: to.String(), Name: "nobody", Hops: 1}.Make()
	var failed *net.OpError
	if errors.As(err, &failed) && failed.Op == "dial" {
		return "", err
	}
	return report.Sidecar, nil // what it makes of a call to nobody is its own business
}

// heldOutbound calls the peer, which the namespace forbids: the sidecar accepts, and ends it.
func (f *flows) heldOutbound(peer netip.Addr) {
	to := netip.AddrPortFrom(peer, standin.PeerPort)
	r := result(report.HeldOutbound, to, report.Sidecar)
	call := func(name string) (string, error) {
		return standin.Call{Network: "tcp", Address: to.String(), Name: name, Seal: f.seal}.Make()
	}
	warm := r
	warm.Flow = warmUp
	for answer := standin.Peer; answer == standin.Peer && f.learning(); {
		answer, _ = call(warm.Caller(f.name))
	}
	f.held(r, func() (string, error) { return call(r.Caller(f.name)) })
}

// heldInbound has the peer call the app in plain text, which the namespace forbids.
func (f *flows) heldInbound(asker *standin.Asker, own netip.AddrPort) {
	call := func() (string, error) { return asker.Ask(fmt.Sprint(standin.Dial, " ", own, " ", own)) }
	for answer := standin.App; answer != "" && f.learning(); {
		answer, _ = call()
	}
	f.held(result(report.HeldInbound, own, report.Sidecar), call)
}

// held makes a call that nobody may answer.
func (f *flows) held(r report.Result, call func() (string, error)) {
	answer, err := call()
	if err != nil {
		answer, r.Error = cmp.Or(answer, strangerIn(err)), oneLine(err)
	}
	r.Got, r.Well = answer, answer == ""
	f.say(r)
}

// queries ask an address that nobody has for a name, no further than the node.
func (f *flows) queries(to netip.AddrPort) {
	if !f.serves(to.Addr(), f.sidecar.DNS) {
		f.unserved(result(report.DNS, to, report.Sidecar))
		f.unserved(result(report.DNSOverTCP, to, report.Sidecar))
		return
	}
	family := map[bool]string{true: "4", false: "6"}[to.Addr().Is4()]
	for flow, network := range map[string]string{report.DNS: "udp", report.DNSOverTCP: "tcp"} {
		f.settle(result(flow, to, report.Sidecar), func() (string, error) {
			c := standin.Call{Network: network + family, Address: to.String(), Hops: 1}
			return report.Sidecar, c.Query(f.asks)
		})
	}
}

// callByMesh calls an app of the mesh, whose sidecar has to have seen this pod's certificate.
func (f *flows) callByMesh() {
	to, err := netip.ParseAddrPort(f.mtls)
	if err != nil { // the flag has been read
		panic(err)
	}
	f.settle(result(report.MTLS, to, standin.App), func() (string, error) {
		answer, err := standin.CallByMesh(f.mtls, f.seal)
		who, identity, _ := strings.Cut(answer, " ")
		return f.known(who, identity, err)
	})
}

// known returns who it is that has an identity of the mesh.
func (f *flows) known(who, identity string, err error) (string, error) {
	switch {
	case err != nil:
		return "", err
	case identity == "":
		return "", fmt.Errorf("%s answers, and no sidecar has seen a certificate", who)
	case !strings.HasPrefix(identity, "spiffe://") || !strings.HasSuffix(identity, f.identity):
		return "", fmt.Errorf("%s answers with the identity %q, and %q has to be its end", who, identity, f.identity)
	}
	return who + " " + identity, nil
}

// settle tries until it is well, or until nobody can say any more that the sidecar has not been told yet.
func (f *flows) settle(r report.Result, call func() (string, error)) {
	for {
		answer, err := call()
		if err == nil {
			r.Got, r.Error, r.Well = answer, "", true
			break
		}
		if r.Error = oneLine(err); !f.learning() {
			break
		}
	}
	f.say(r)
}

package flows

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/internal/standin"
	"github.com/istio-pod-network/controller/plugin/flows/report"
)

// The flows beside Istio's own sidecar. Unlike the stand-in it does not tell its name, so it is recognised by what it
// does. It accepts a connection to an address that nobody has. It has a certificate of the mesh, and reports its
// caller's certificate. It blocks what its namespace forbids, outbound (REGISTRY_ONLY) and inbound (STRICT).

// A call may fail because the sidecar has not yet received its configuration. It is repeated for settles, with pauses
// of learns.
const (
	settles = 20 * time.Second
	learns  = 500 * time.Millisecond
)

// warmUp is the flow name of calls that wait until the sidecar knows what is forbidden. They have no result.
const warmUp = "warm-up"

// serve serves as an app until the process is told to end.
func (p *process) serve(o options) (bool, error) {
	ended := ending()
	if err := serveApp(o.seal); err != nil {
		return false, err
	}
	<-ended
	return true, nil
}

// byEnvoy makes the flows of an app beside Istio's sidecar.
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

// throughEnvoy makes the flows of a captured family, without the attempts to get around the sidecar.
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

// learning pauses and returns true, until the sidecar has had time to receive its configuration.
func (f *flows) learning() bool {
	if time.Now().After(f.knows) {
		return false
	}
	time.Sleep(learns)
	return true
}

// serves reports whether the sidecar listens on a port in the family. The call uses lo, so it is not redirected.
func (f *flows) serves(family netip.Addr, port uint16) bool {
	lo := map[bool]string{false: "127.0.0.1", true: "::1"}[family.Is6()]
	for range tries {
		c, err := net.DialTimeout("tcp", net.JoinHostPort(lo, fmt.Sprint(port)), standin.Patience)
		if err == nil {
			_ = c.Close()
			return true
		}
		if !os.IsTimeout(err) {
			break
		}
	}
	return false
}

// unserved reports a flow that could not be made.
func (f *flows) unserved(r report.Result) {
	r.Unmade, r.Well = "the sidecar does not listen in this family", true // this is not the pod's fault
	f.say(r)
}

// accepted calls an address that nobody has, with a hop limit of 1: whatever accepts the connection is in this pod.
func accepted(to netip.AddrPort) (string, error) {
	_, err := standin.Call{Network: "tcp", Address: to.String(), Name: "nobody", Hops: 1}.Make()
	var failed *net.OpError
	if errors.As(err, &failed) && failed.Op == "dial" {
		return "", err
	}
	return report.Sidecar, nil // it does not matter what the sidecar does with the connection
}

// heldOutbound calls the peer, which the namespace forbids: the sidecar accepts the connection, and closes it.
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

// heldInbound asks the peer to call the app in plain text, which the namespace forbids.
func (f *flows) heldInbound(asker *standin.Asker, own netip.AddrPort) {
	call := func() (string, error) { return asker.Ask(fmt.Sprint(standin.Dial, " ", own, " ", own)) }
	for answer := standin.App; answer != "" && f.learning(); {
		answer, _ = call()
	}
	f.held(result(report.HeldInbound, own, report.Sidecar), call)
}

// held makes a call that nothing may answer. It repeats a call without an answer.
func (f *flows) held(r report.Result, call func() (string, error)) {
	for range tries {
		answer, err := call()
		if r.Got, r.Error = answer, ""; err != nil {
			r.Got, r.Error = cmp.Or(answer, strangerIn(err)), oneLine(err)
		}
		if r.Got != "" {
			break
		}
	}
	r.Well = r.Got == ""
	f.say(r)
}

// queries sends DNS queries to an address that nobody has, with a hop limit of 1.
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

// callByMesh calls an app in the mesh. That app's sidecar must have seen this pod's certificate.
func (f *flows) callByMesh() {
	to, err := netip.ParseAddrPort(f.mtls)
	if err != nil { // the flag's value has been validated
		panic(err)
	}
	f.settle(result(report.MTLS, to, standin.App), func() (string, error) {
		answer, err := standin.CallByMesh(f.mtls, f.seal)
		who, identity, _ := strings.Cut(answer, " ")
		return f.known(who, identity, err)
	})
}

// known returns who answered and its mesh identity. The identity must be a SPIFFE ID that ends as --identity says.
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

// settle repeats the call until it succeeds, or until the sidecar must have received its configuration.
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

package tracetest

import (
	"net/netip"
	"slices"
	"syscall"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/istio-pod-network/controller/plugin/trace"
)

// Beside says where a plain flow lands beside the chains of somebody else, of which Istio's semantics know nothing: by
// the ways of its first packet, of the answer and of what follows, and by who listens where.
func (p Predictor) Beside(f testnet.Flow, family testnet.Family) testnet.Outcome {
	packet := p.packet(f, family)
	if !p.has(packet.Source.Addr()) {
		return testnet.Outcome{Landed: testnet.NoAddress}
	}
	way := p.Rules.Trace(Pod(), packet)
	if refused := atOnce(way); refused != nil && tells(f, family) {
		return testnet.Outcome{Landed: testnet.Failed, Note: refused.Error()}
	}
	o := receiver(f, way)
	if o.Landed == testnet.Timeout {
		return o
	}
	back := p.answerOf(f, way, o.Landed)
	arrives, owned, unowned := p.goesOn(f, way, back, o.Landed)
	switch more := f.Proto == testnet.TCP && o.Landed != testnet.Refused; {
	case !comesBack(way, back):
		if f.Proto == testnet.UDP {
			return o.WithoutAnswer()
		}
		return testnet.Outcome{Landed: testnet.Timeout}
	case more && !arrives:
		return testnet.Outcome{Landed: testnet.Timeout}
	case more && owned != unowned:
		return o.PerhapsAnswered()
	case more && !owned:
		return o.WithoutAnswer()
	case o.Landed == testnet.Refused, f.Proto != testnet.ICMP:
		return o
	}
	return testnet.Direct(p.Profile, f, family) // who has answered a ping does not say so
}

// tells reports whether a socket says what the kernel tells it: TCP tries again, and icmpv6_push_pending_frames in
// net/ipv6/icmp.c returns nothing.
func tells(f testnet.Flow, family testnet.Family) bool {
	return f.Proto == testnet.UDP || f.Proto == testnet.ICMP && family == testnet.IPv4
}

// atOnce is what the kernel tells a socket of the pod of a packet that it does not send, nil for nothing.
func atOnce(way trace.Way) error {
	last := way.Steps[len(way.Steps)-1]
	switch {
	case way.Packet.In != "":
		return nil
	case way.Landed == trace.Dropped && last.Hook == redirect.Output:
		return syscall.EPERM
	case fromLoopback(way) && way.Packet.Family() == redirect.IPv4:
		return syscall.EINVAL // there is no route: __mkroute_output in net/ipv4/route.c
	}
	return nil
}

// fromLoopback reports whether the packet would leave the pod with a source that is lo's, which no kernel takes.
func fromLoopback(way trace.Way) bool {
	return way.Landed == trace.Outside && way.Packet.In == "" && way.Packet.Source.Addr().IsLoopback()
}

// receiver is who takes the first packet, and what it knows of it; Timeout, if nobody does.
func receiver(f testnet.Flow, way trace.Way) testnet.Outcome {
	o := testnet.Outcome{Dst: way.Dest.String(), Source: way.Packet.Source.Addr().String()}
	switch way.Landed {
	case trace.Dropped:
		return testnet.Outcome{Landed: testnet.Timeout}
	case trace.Outbound, trace.Inbound, trace.DNS:
		o.Landed = map[trace.Landing]testnet.Landing{trace.Outbound: testnet.AtOutbound, trace.Inbound: testnet.AtInbound,
			trace.DNS: testnet.AtDNS}[way.Landed]
		o.Dst = way.Original.String()
		if o.Landed == testnet.AtDNS && f.Proto == testnet.UDP {
			o.Dst = ""
		}
		return o
	}
	o.Landed = testnet.Reached(way.Dest, f.Proto, way.Landed == trace.InPod)
	switch {
	case o.Landed == testnet.Timeout, fromLoopback(way), o.Landed == testnet.Refused && unrefused(way):
		return testnet.Outcome{Landed: testnet.Timeout}
	case o.Landed == testnet.Refused:
		return testnet.Outcome{Landed: testnet.Refused}
	}
	return o
}

// unrefused reports whether the kernel sends no reset to who has called a closed port: of IPv6 none goes to ::1 from
// the address of another interface, also where there are no rules. It would have to leave by that one, as whose the
// packet counts: ip6_rcv_core in net/ipv6/ip6_input.c, tcp_v6_send_response in net/ipv6/tcp_ipv6.c.
func unrefused(way trace.Way) bool {
	return way.Packet.Source.Addr() == netip.IPv6Loopback() && slices.ContainsFunc(Pod().Links, func(l trace.Link) bool {
		return slices.ContainsFunc(l.Addresses, func(p netip.Prefix) bool { return p.Addr() == way.Dest.Addr() })
	})
}

// answerOf is the way of the answer; nobody's socket refuses.
func (p Predictor) answerOf(f testnet.Flow, way trace.Way, by testnet.Landing) trace.Way {
	if way.Landed == trace.InPod && (by == testnet.Refused || f.Proto == testnet.ICMP) {
		return p.Rules.AnswerTo(Pod(), way, nil)
	}
	return p.answer(f, way)
}

// comesBack reports whether an answer reaches who has sent the packet, as one to it: from the address that was called.
func comesBack(way, back trace.Way) bool {
	if way.Packet.In == "" {
		if back.Landed != trace.InPod || back.Dest != way.Packet.Source {
			return false
		}
	} else if back.Landed != trace.Outside || back.Dest != way.Packet.Source || back.Link != way.Packet.In {
		return false
	}
	return back.Answer || back.Packet.Source == way.Packet.Dest
}

// goesOn reports whether what follows the answer arrives where the first packet has, and whether its answer comes back:
// the answer of who has the connection, and that of a kernel that acknowledges what nobody has accepted yet. Only where
// connection tracking knows no connection one may be taken otherwise than the other.
func (p Predictor) goesOn(f testnet.Flow, way, back trace.Way, by testnet.Landing) (arrives, owned, unowned bool) {
	more := way.Packet
	more.Later = true
	switch {
	case back.Answer:
		more.Conn = &trace.Conn{Mark: back.ConnMark, Zone: way.Zone, Original: way.Packet.Dest}
		if way.Dest != way.Packet.Dest && !way.Taken {
			more.Conn.Led = way.Dest
		}
	case way.Tracked:
		more.Invalid = true // it follows no answer that connection tracking has seen
	}
	next := p.Rules.Trace(Pod(), more)
	owned = comesBack(next, p.answerOf(f, next, by))
	if way.Taken { // its destination stays, and so does its socket
		arrives = next.Landed != trace.Outside && next.Landed != trace.Dropped
		owned = owned || next.Tracked
	} else {
		arrives = next.Landed == way.Landed && next.Dest == way.Dest
	}
	if unowned = owned; arrives && !next.Tracked && next.Landed != trace.Outside {
		unowned = comesBack(next, p.Rules.AnswerTo(Pod(), next, nil))
	}
	return arrives, owned, unowned
}

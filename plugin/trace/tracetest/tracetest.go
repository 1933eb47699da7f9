// Package tracetest has the flows of the laboratory predicted by package trace, so that what is predicted can be held
// against what a kernel does with real packets, and against what Istio's semantics want. It is no part of the product.
package tracetest

import (
	"net/netip"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/istio-pod-network/controller/plugin/trace"
)

// Pod is the laboratory's pod.
func Pod() trace.Pod {
	var pod trace.Pod
	for _, link := range []struct {
		name string
		at   testnet.Place
	}{{"eth0", testnet.Pod}, {"net1", testnet.Net1}} {
		pod.Links = append(pod.Links, trace.Link{Name: link.name, Addresses: []netip.Prefix{
			netip.PrefixFrom(link.at.Addr(testnet.IPv4), 24), netip.PrefixFrom(link.at.Addr(testnet.IPv6), 64),
		}})
	}
	pod.OnLoopback = []netip.Addr{testnet.Self.Addr(testnet.IPv4), testnet.Self.Addr(testnet.IPv6)}
	return pod
}

// Predictor predicts where the flows of a profile land.
type Predictor struct {
	Rules   trace.Rules
	Profile testnet.Profile
}

// Agrees reports whether an outcome is the predicted one. An attempt to get around the sidecar that is let pass may
// come to nothing where it is not owed what it hopes for: see testnet.Result.OK.
func (p Predictor) Agrees(r testnet.Result) (want testnet.Outcome, agrees bool) {
	want, got := p.Predict(r.Flow, r.Family), r.Got
	if got.Unheard() {
		got.Note = ""
	}
	hopes := r.Hopes() && want.Landed != testnet.Failed
	return want, want == got || hopes && got.Landed == testnet.Kept
}

// Predict says where a flow lands.
func (p Predictor) Predict(f testnet.Flow, family testnet.Family) testnet.Outcome {
	if _, escapes := f.Attempt(); escapes {
		return p.attempt(f, family)
	}
	switch f.Kind {
	case testnet.Invalid:
		return p.invalid(f, family)
	case testnet.NoSocket:
		return p.noSocket(f, family)
	case testnet.Zones:
		return p.zones(f, family)
	}
	packet := p.packet(f, family)
	if !p.has(packet.Source.Addr()) {
		return testnet.Outcome{Landed: testnet.NoAddress}
	}
	pod := Pod()
	// Who listens without a transparent socket is nobody to TPROXY, and somebody to nat.
	pod.NoInbound = f.Kind == testnet.ListenerDown || f.Kind == testnet.PlainListener
	way := p.Rules.Trace(pod, packet)
	o := p.outcome(f, family, way)
	if f.Kind == testnet.Zone && p.tracks(family) {
		o.Note = map[uint16]string{0: "zone 0", 2: "zone 2"}[way.Zone]
	}
	return o
}

// Way is the way of the flow's first packet.
func (p Predictor) Way(f testnet.Flow, family testnet.Family) trace.Way {
	return p.Rules.Trace(Pod(), p.packet(f, family))
}

// packet is the flow's first one.
func (p Predictor) packet(f testnet.Flow, family testnet.Family) trace.Packet {
	sent := f.Sent(p.Profile, family)
	packet := trace.Packet{Proto: proto(f.Proto, family), Source: sent.Source, Dest: sent.Dest, In: sent.Link,
		Mark: sent.Mark}
	if sent.Link == "" {
		packet.Owner = owner(sent.UID, sent.GID)
	}
	return packet
}

func owner(uid, gid int) *trace.Owner {
	return &trace.Owner{UID: redirect.ID(uid), GID: redirect.ID(gid)}
}

func proto(p testnet.Proto, family testnet.Family) redirect.Proto {
	switch {
	case p == testnet.TCP:
		return redirect.TCP
	case p == testnet.UDP:
		return redirect.UDP
	case family == testnet.IPv6:
		return 58
	}
	return 1
}

// has reports whether a socket of the pod may be bound to the address; ::6 is the rules' to add.
func (p Predictor) has(source netip.Addr) bool {
	if source != testnet.Passthrough.Addr(testnet.IPv6) || len(p.Rules.Tables) == 0 { // then a test adds it
		return true
	}
	for _, a := range p.Rules.Addresses {
		if a.Prefix.Addr() == source {
			return true
		}
	}
	return false
}

// tracks reports whether the family's connections are tracked at all: a kernel does so for who asks.
func (p Predictor) tracks(family testnet.Family) bool {
	for _, t := range p.Rules.Tables {
		if t.Family == redirect.Family(family) {
			return true
		}
	}
	return false
}

// lost are the outcomes that no flow has: of a packet that goes where nobody is, and of an answer that does not come
// back.
func lost(why string) testnet.Outcome { return testnet.Outcome{Landed: testnet.Failed, Note: why} }

// outcome is what comes of a first packet's way, and of its answer's.
func (p Predictor) outcome(f testnet.Flow, family testnet.Family, way trace.Way) testnet.Outcome {
	direct := testnet.Direct(p.Profile, f, family)
	sent := f.Sent(p.Profile, family)
	switch {
	case way.Landed == trace.Dropped:
		return testnet.Outcome{Landed: testnet.Timeout}
	case way.Landed == trace.Outside && (sent.Local || way.Link != testnet.LinkTo(f.To)),
		way.Landed == trace.InPod && !sent.Local, !way.Landed.Listener() && way.Dest != sent.Dest:
		return lost("goes to " + way.Dest.String())
	case way.Landed == trace.Inbound && f.Kind == testnet.ListenerDown:
		return testnet.Outcome{Landed: testnet.Refused}
	}
	if f.Kind == testnet.OriginalSrc && p.answer(f, way).Landed == trace.Outside {
		return testnet.Outcome{Landed: testnet.Timeout} // the client gets the answer to a question that it has not asked
	}
	if back := p.answer(f, way); !back.Answer || back.Landed == trace.Dropped {
		return lost("no answer comes back")
	}
	if way.Landed == trace.Inbound && p.Rules.Spec.Mode == redirect.ModeTProxy && !p.stays(way) {
		return lost("what follows is not taken")
	}
	switch way.Landed {
	case trace.Outbound, trace.Inbound, trace.DNS:
		o := testnet.Outcome{Landed: map[trace.Landing]testnet.Landing{trace.Outbound: testnet.AtOutbound,
			trace.Inbound: testnet.AtInbound, trace.DNS: testnet.AtDNS}[way.Landed],
			Dst: way.Original.String(), Source: way.Packet.Source.Addr().String()}
		if way.Landed == trace.DNS && f.Proto == testnet.UDP {
			o.Dst = ""
		}
		return o
	}
	return direct
}

// stays reports whether the packet that follows the answer comes to the pod, too, which nat does not see to where
// TPROXY has taken the first one.
func (p Predictor) stays(way trace.Way) bool {
	more := way.Packet
	more.Later, more.Conn = true, &trace.Conn{Mark: way.ConnMark, Zone: way.Zone, Original: way.Packet.Dest}
	landed := p.Rules.Trace(Pod(), more).Landed
	return landed != trace.Outside && landed != trace.Dropped
}

// answer is the way of the first answer.
func (p Predictor) answer(f testnet.Flow, way trace.Way) trace.Way {
	if way.Landed == trace.Outside {
		return p.Rules.AnswerFrom(Pod(), way)
	}
	party := testnet.FromApp
	switch {
	case f.As != "" && way.Landed == trace.DNS:
		party = f.As
	case way.Landed.Listener() && p.Rules.Spec.Mode == redirect.ModeTProxy:
		party = testnet.FromProxyGID
	case way.Landed.Listener():
		party = testnet.FromProxy
	}
	return p.Rules.AnswerTo(Pod(), way, owner(party.IDs(p.Profile)))
}

func (p Predictor) invalid(f testnet.Flow, family testnet.Family) testnet.Outcome {
	packet := p.packet(f, family)
	packet.Later, packet.Invalid = true, true
	switch p.Rules.Trace(Pod(), packet).Landed {
	case trace.Dropped:
		return testnet.Outcome{Landed: testnet.Silence}
	case trace.InPod, trace.Inbound: // TPROXY hands it to a socket, too
		return testnet.Outcome{Landed: testnet.Reset}
	}
	return lost("an invalid packet is redirected")
}

// noSocket is the late segment of a connection that is forgotten, and the answer of the kernel.
func (p Predictor) noSocket(f testnet.Flow, family testnet.Family) testnet.Outcome {
	ack := p.packet(f, family)
	ack.Owner, ack.Later = nil, true
	ack.Source = netip.AddrPortFrom(ack.Dest.Addr(), ack.Source.Port())
	fin := trace.Packet{Proto: ack.Proto, Source: ack.Dest, Dest: ack.Source, Owner: owner(0, 0), Later: true,
		Invalid: true}
	if p.Rules.Trace(Pod(), fin).Landed == trace.Dropped {
		return testnet.Outcome{Landed: testnet.Silence}
	}
	switch way := p.Rules.Trace(Pod(), ack); {
	case way.Landed == trace.InPod && way.Dest == ack.Dest:
		return testnet.Outcome{Landed: testnet.AtApp}
	case way.Landed == trace.Outbound:
		return testnet.Outcome{Landed: testnet.AtOutbound}
	}
	return lost("an answer without a socket is lost")
}

// zones is the app's query, and then the flow's, from the same port.
func (p Predictor) zones(f testnet.Flow, family testnet.Family) testnet.Outcome {
	plain := f
	plain.Kind = testnet.Plain
	asked := plain
	asked.From = testnet.FromApp
	first, second := p.Rules.Trace(Pod(), p.packet(asked, family)), p.Rules.Trace(Pod(), p.packet(plain, family))
	o := p.outcome(plain, family, second)
	o.Note = "app " + string(p.outcome(asked, family, first).Landed)
	if first.Landed == trace.DNS {
		o.Note += ", another zone replied"
		if first.Zone == second.Zone {
			return lost("the query is more of the app's")
		}
	}
	return o
}

// attempt is about a packet of a connection that connection tracking knows, and that nobody has redirected. It must go
// where it goes as a first one, or nowhere.
func (p Predictor) attempt(f testnet.Flow, family testnet.Family) testnet.Outcome {
	a, _ := f.Attempt()
	packet := p.packet(f, family)
	byDevice := family == testnet.IPv4 && !a.Helped // the entry is one from the pod to the server, else the other way
	captured, agree := p.judged(packet, byDevice == a.Inbound)
	if a.BothSides() { // then one of the two is enough
		in := trace.Packet{Proto: packet.Proto, Source: packet.Dest, Dest: packet.Source, In: "eth0"}
		capturedIn, agreeIn := p.judged(in, byDevice)
		captured, agree = captured && capturedIn, agree && agreeIn
	}
	switch {
	case !agree:
		return lost("the guard and nat do not agree")
	case captured:
		return testnet.Outcome{Landed: testnet.Kept}
	case a.Inbound:
		return testnet.Outcome{Landed: testnet.AtApp}
	}
	return testnet.Direct(p.Profile, f, family)
}

// judged reports whether a first packet is captured, and whether it is kept back, too, where it has an entry; reply is
// its direction there.
func (p Predictor) judged(packet trace.Packet, reply bool) (captured, agree bool) {
	captured = p.Rules.Trace(Pod(), packet).Landed.Listener()
	packet.Conn = &trace.Conn{Reply: reply, Original: packet.Dest}
	if reply {
		packet.Conn.Original = packet.Source
	}
	known := p.Rules.Trace(Pod(), packet).Landed
	return captured, captured == (known == trace.Dropped || known.Listener())
}

package testnet

import (
	"net/netip"
	"slices"

	"github.com/istio-pod-network/controller/internal/escape"
)

// Expected returns where the flow lands by Istio's semantics. Deliberate differences are marked with DELIBERATE; the
// function Deliberate names their flows.
func Expected(p Profile, f Flow, family Family) Outcome {
	return p.settings().expect(f, family)
}

// Why says in a few words why the flow lands where Expected says.
func Why(p Profile, f Flow, family Family) string {
	_, why := p.settings().listener(f, family)
	return why
}

// direct is the landing of a flow that is not redirected.
const direct Landing = ""

// listener returns the listener to which the flow is redirected, and why.
func (s settings) listener(f Flow, family Family) (Landing, string) {
	s = s.in(family)
	switch {
	case s.none:
		return direct, "nothing is redirected"
	case f.Kind == Invalid && s.dropInvalid, f.Kind == NoSocket && s.dropInvalid:
		return direct, "what conntrack calls invalid is dropped"
	case f.Kind == Invalid:
		return direct, "invalid packets pass"
	case f.Kind == NoSocket:
		return direct, "what has no owner is not the proxy's, and stays in the pod"
	case f.Kind == OriginalSrc:
		return direct, "to its app, with the client's address"
	case f.Kind == Zones:
		return direct, "the proxy's queries are in another conntrack zone than those to it"
	case f.Proto == ICMP:
		return direct, "not TCP"
	case f.From.inPod():
		return s.outbound(f, family)
	}
	return s.inbound(f, family)
}

func (s settings) expect(f Flow, family Family) Outcome {
	s = s.in(family)
	switch {
	case s.none && f.Kind == OriginalSrc && !f.Src.local():
		return Outcome{Landed: Timeout} // the app answers the client
	case s.none && s.onlyFamily != 0 && family == IPv6 && f.Src == Passthrough && !f.Escapes():
		return Outcome{Landed: NoAddress} // the writer of the rules has to add ::6
	case f.Kind == Invalid, f.Kind == NoSocket:
		return s.expectCrafted(f)
	case f.Kind == Zones:
		return s.expectZones(f, family)
	case f.Kind == Zone:
		return s.expectZone(f, family)
	case f.Proto == ICMP:
		return Outcome{Landed: placeLanding(f.To), Dst: f.To.Addr(family).String()}
	}
	redirected, _ := s.listener(f, family)
	a, escapes := f.Kind.attempt()
	switch {
	case escapes:
		return s.expectEscape(f, a, redirected, family)
	case redirected == direct:
		return s.reach(f, family)
	case redirected == AtInbound && f.Kind == ListenerDown && s.tproxy:
		return Outcome{Landed: Timeout} // TPROXY drops packets for which no transparent listener exists
	case redirected == AtInbound && f.Kind == ListenerDown:
		return Outcome{Landed: Refused}
	}
	o := Outcome{Landed: redirected, Dst: netip.AddrPortFrom(f.To.Addr(family), f.Port).String(),
		Source: source(f, family)}
	if redirected == AtDNS && f.Proto == UDP {
		o.Dst = ""
	}
	return o
}

// expectEscape is for attempts to get around the sidecar. They land where they are aimed, or nowhere if the connection
// should have been redirected.
func (s settings) expectEscape(f Flow, a escape.Attempt, redirected Landing, family Family) Outcome {
	kept := redirected != direct || a.Helped && s.losesAnswer(f, a, family)
	if a.BothSides() { // the guard needs to drop one of the two SYNs only
		in, _ := s.inbound(Flow{From: FromPeer, Proto: TCP, To: Pod, Port: firstPort}, family)
		kept = kept && in != direct
	}
	switch {
	case kept:
		return Outcome{Landed: Kept}
	case a.Inbound:
		return Outcome{Landed: AtApp}
	}
	o := s.reach(f, family)
	if o.Landed != Kept && s.losesAnswer(f, a, family) {
		o.Note = unheard
	}
	return o
}

// losesAnswer reports whether the rules drop the server's answer to an attempt that reaches the server. If conntrack
// takes the connection for an answer, it considers the answer to that invalid. So dropInvalid drops it, and TPROXY does
// not see an established connection if it captures the attempt's own port. A first segment that is redirected creates
// no such entry.
//
// After a segment of a helper, the first segment of the answer is already invalid, and there is no connection. After
// one of this kernel only later segments are, so the app's data arrives: two SYNs of one kernel with the same addresses
// and ports have similar sequence numbers (secure_tcpv6_seq in net/core/secure_seq.c), so the first segment is in the
// window (tcp_in_window in net/netfilter/nf_conntrack_proto_tcp.c).
func (s settings) losesAnswer(f Flow, a escape.Attempt, family Family) bool {
	switch {
	case a.Harmless != "":
		return false
	case a.Helped:
		return s.dropInvalid && (s.tproxy || !s.capturesInbound(neverCaptured))
	case family == IPv6 && a.TakesServerPort() && !a.Called:
		first, _ := s.outbound(Flow{From: f.From, Proto: TCP, To: f.Src, Port: firstPort}, family)
		return first == direct && (s.dropInvalid || s.tproxy && s.capturesInbound(firstPort))
	}
	return false
}

// capturesInbound reports whether an inbound port is captured.
func (s settings) capturesInbound(port uint16) bool {
	if s.allInPorts {
		return !s.excludeInPorts.has(port)
	}
	return s.includeInPorts.has(port)
}

// inbound returns the landing of a packet from outside the pod.
func (s settings) inbound(f Flow, family Family) (Landing, string) {
	link := "eth0"
	if f.From == FromVM {
		link = "net1"
	}
	switch {
	case f.Proto != TCP:
		return direct, "not TCP"
	// even if it is excluded, too. DELIBERATE in TPROXY mode, in which Istio's two redirections conflict
	case named(s.rerouteInterfaces, link):
		// Traffic of a machine behind this pod counts as outbound, and never as inbound.
		if s.allRanges || contains(s.includeRanges, f.To.Addr(family)) {
			return AtOutbound, "rerouteVirtualInterfaces"
		}
		return direct, "rerouteVirtualInterfaces, but outside includeOutboundIPRanges"
	case named(s.excludeInterfaces, link):
		return direct, "excludeInterfaces"
	case f.Port == 15008: // DELIBERATE in TPROXY mode, in which Istio captures it
		return direct, "the mesh's own tunnel port"
	case s.allInPorts && s.excludeInPorts.has(f.Port):
		return direct, "excludeInboundPorts"
	case s.allInPorts, s.includeInPorts.has(f.Port):
		return AtInbound, "inbound TCP"
	}
	return direct, "not in includeInboundPorts"
}

// outbound returns the landing of a packet from a party in the pod.
func (s settings) outbound(f Flow, family Family) (Landing, string) {
	who, dst, lo := f.From.ids(s), f.To.Addr(family), s.local(f)
	isDNS := s.dns && f.Port == 53
	switch {
	case !lo && named(s.excludeInterfaces, link(f.To)):
		return direct, "excludeInterfaces"
	case s.excludeOutPorts.has(f.Port) && s.marksLoopback(f, who):
		return s.inboundByMark(f)
	case s.excludeOutPorts.has(f.Port):
		return direct, "excludeOutboundPorts"
	case lo && f.Src == Passthrough:
		return direct, "inbound traffic on its way to the app"
	case who.uid == s.proxyUID, who.gid == s.proxyGID:
		return s.ofProxy(f, who.uid == s.proxyUID)
	case lo && !isDNS && !s.loopbackCIDR:
		return direct, "the app calls its own pod"
	case s.allGroups && slices.Contains(s.excludeGroups, who.gid):
		return direct, "excludeOutboundOwnerGroups"
	case !s.allGroups && !slices.Contains(s.includeGroups, who.gid):
		return direct, "not in includeOutboundOwnerGroups"
	case isDNS:
		return AtDNS, "dnsCapture"
	case f.Proto != TCP:
		return direct, "not TCP"
	case f.To == Loopback:
		return direct, "to " + dst.String()
	case contains(s.excludeRanges, dst):
		return direct, "excludeOutboundIPRanges"
	case s.allOutPorts, s.includeOutPorts.has(f.Port):
		return AtOutbound, "includeOutboundPorts"
	case s.allRanges, contains(s.includeRanges, dst):
		return AtOutbound, "outbound TCP"
	}
	return direct, "not in includeOutboundIPRanges"
}

// ofProxy returns the landing of a packet from the proxy's user, or from its group only.
func (s settings) ofProxy(f Flow, byUID bool) (Landing, string) {
	switch {
	case !f.To.local():
		return direct, "the proxy's own traffic"
	case f.To == Loopback, f.Proto != TCP, f.Port == 15008, s.dns && f.Port == 53 && !s.tproxy:
		return direct, "the proxy's own traffic within the pod"
	case s.tproxy && (!byUID || s.dns && f.Port == 53):
		return s.inboundByMark(f)
	}
	return AtInbound, "the proxy calls its own pod" // DELIBERATE for the group only, which Istio lets pass
}

// link returns the interface by which packets to a place outside the pod leave.
func link(to Place) string {
	if to == VM {
		return "net1"
	}
	return "eth0"
}

// local reports whether the flow stays in the pod. TPROXY's routes also keep packets with mark 1337 in it.
func (s settings) local(f Flow) bool { return f.To.local() || s.tproxy && f.Kind == Marked }

// isMarked reports whether the socket has mark 1337.
func (f Flow) isMarked() bool { return f.Kind == OriginalSrc || f.Kind == Marked }

// marksLoopback reports whether TPROXY's rules set mark 1338 on the flow, which other rules do not change.
func (s settings) marksLoopback(f Flow, who ids) bool {
	return s.tproxy && (who.uid == s.proxyUID || who.gid == s.proxyGID) && f.To.local() && f.To != Loopback &&
		f.Proto == TCP && f.Port != 15008 &&
		f.Src != Passthrough
}

// inboundByMark returns the landing of a TPROXY sidecar's calls to its own pod: mark 1338 sends them to the rules for
// inbound packets.
func (s settings) inboundByMark(f Flow) (Landing, string) {
	if s.capturesInbound(f.Port) {
		return AtInbound, "the proxy calls its own pod"
	}
	return direct, "no inbound port of the mesh"
}

// expectCrafted is for packets that do not start a connection.
func (s settings) expectCrafted(f Flow) Outcome {
	switch {
	case s.dropInvalid: // also the answer to the late FIN, which has no socket
		return Outcome{Landed: Silence}
	case f.Kind == Invalid:
		return Outcome{Landed: Reset}
	}
	return Outcome{Landed: AtApp}
}

// expectZone is for the conntrack zone of a query: its own zone if it is redirected. DELIBERATE if it is not.
func (s settings) expectZone(f Flow, family Family) Outcome {
	plain := f
	plain.Kind = Plain
	o := s.expect(plain, family)
	if s.none {
		return o // connections are not tracked
	}
	o.Note = map[bool]string{true: "zone 2", false: "zone 0"}[o.Landed == AtDNS]
	return o
}

// expectZones is for two DNS queries from one source port: the app's, and then the proxy's to the server itself.
func (s settings) expectZones(f Flow, family Family) Outcome {
	first := s.expect(Flow{From: FromApp, Proto: UDP, To: f.To, Port: f.Port}, family)
	o := s.reach(f, family)
	o.Note = "app " + string(first.Landed)
	if first.Landed == AtDNS {
		o.Note += ", another zone replied" // in a single zone the query would be redirected, too
	}
	return o
}

// reach returns the outcome of a flow that is not redirected.
func (s settings) reach(f Flow, family Family) Outcome {
	landing := placeLanding(f.To)
	if s.local(f) {
		landing = AtApp
	}
	open := peerPorts
	switch {
	case f.Proto == UDP:
		open = udpPorts
	case landing == AtApp:
		open = appPorts
	}
	a, _ := f.Kind.attempt()
	switch {
	case a.Loopback && family == IPv4: // packets from 127.0.0.6 do not leave a pod
		return Outcome{Landed: Kept}
	case s.local(f) && !f.To.local() && family == IPv4: // no answer has a foreign source
		return Outcome{Landed: Timeout}
	case !a.BothSides() && !slices.Contains(open, f.Port):
		return Outcome{Landed: Refused}
	}
	return Outcome{Landed: landing, Dst: netip.AddrPortFrom(f.To.Addr(family), f.Port).String(), Source: source(f,
		family)}
}

// source returns the source address, which the kernel chooses if the flow has none.
func source(f Flow, family Family) string {
	from := f.Src
	switch {
	case from != Anywhere:
	case f.From == FromPeer:
		from = Peer
	case f.From == FromVM:
		from = VM
	case f.To == Loopback2:
		from = Loopback
	case f.To.local():
		from = f.To
	case f.To == VM:
		from = Net1
	default:
		from = Pod
	}
	return from.Addr(family).String()
}

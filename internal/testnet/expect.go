package testnet

import (
	"net/netip"
	"slices"

	"github.com/istio-pod-network/controller/internal/escape"
)

// Expected says where the flow lands if the pod's rules mean what Istio's mean. The deliberate differences are marked
// with DELIBERATE; the function Deliberate names their flows.
func Expected(p Profile, f Flow, family Family) Outcome {
	return p.settings().expect(f, family)
}

// Why says in a few words what makes the flow land where Expected says.
func Why(p Profile, f Flow, family Family) string {
	_, why := p.settings().listener(f, family)
	return why
}

// direct is the landing of a flow that nothing turns around.
const direct Landing = ""

// listener says which listener the flow is turned to, and why.
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
		return Outcome{Landed: NoAddress} // ::6 is the rules' writer's to add
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
		return Outcome{Landed: Timeout} // TPROXY drops what no transparent listener takes
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

// expectEscape is about attempts to get around the sidecar: they land where the connection does which they should have
// been, or nowhere.
func (s settings) expectEscape(f Flow, a escape.Attempt, redirected Landing, family Family) Outcome {
	kept := redirected != direct || a.Helped && s.losesAnswer(f, a, family)
	if a.BothSides() { // one SYN is enough
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

// losesAnswer reports whether the rules keep the server's answer from an attempt that nothing else keeps from the
// server. Where the connection is an answer to connection tracking, it takes the answer to that for invalid; so that
// dropInvalid drops it, and TPROXY does not see an open connection where it captures the attempt's own port. A first
// segment that is redirected leaves no such entry. After a helper's segment that begins with the first segment of the
// answer, and there is no connection. After one of this kernel it begins later, and what the app says is heard: two
// SYNs of one kernel with the same numbers differ little in their sequence numbers (secure_tcpv6_seq in
// net/core/secure_seq.c), by which the first segment is in the window (tcp_in_window in nf_conntrack_proto_tcp.c).
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

// inbound judges a packet from outside the pod.
func (s settings) inbound(f Flow, family Family) (Landing, string) {
	link := "eth0"
	if f.From == FromVM {
		link = "net1"
	}
	switch {
	case f.Proto != TCP:
		return direct, "not TCP"
	// even if it is excluded, too. DELIBERATE in TPROXY mode, where Istio's two redirections collide
	case named(s.rerouteInterfaces, link):
		// What comes from a machine behind this pod is treated as outbound, and never as inbound.
		if s.allRanges || contains(s.includeRanges, f.To.Addr(family)) {
			return AtOutbound, "rerouteVirtualInterfaces"
		}
		return direct, "rerouteVirtualInterfaces, but outside includeOutboundIPRanges"
	case named(s.excludeInterfaces, link):
		return direct, "excludeInterfaces"
	case f.Port == 15008: // DELIBERATE in TPROXY mode, where Istio captures it
		return direct, "the mesh's own tunnel port"
	case s.allInPorts && s.excludeInPorts.has(f.Port):
		return direct, "excludeInboundPorts"
	case s.allInPorts, s.includeInPorts.has(f.Port):
		return AtInbound, "inbound TCP"
	}
	return direct, "not in includeInboundPorts"
}

// outbound judges a packet of a party in the pod.
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

// ofProxy judges a packet of the proxy's user, or of its group alone.
func (s settings) ofProxy(f Flow, byUID bool) (Landing, string) {
	switch {
	case !f.To.local():
		return direct, "the proxy's own traffic"
	case f.To == Loopback, f.Proto != TCP, f.Port == 15008, s.dns && f.Port == 53 && !s.tproxy:
		return direct, "the proxy's own traffic within the pod"
	case s.tproxy && (!byUID || s.dns && f.Port == 53):
		return s.inboundByMark(f)
	}
	return AtInbound, "the proxy calls its own pod" // DELIBERATE for the group alone, which Istio lets pass
}

// link is the interface that packets to a place outside the pod leave through.
func link(to Place) string {
	if to == VM {
		return "net1"
	}
	return "eth0"
}

// local reports whether the flow does not leave the pod: so do TPROXY's routes with what carries mark 1337.
func (s settings) local(f Flow) bool { return f.To.local() || s.tproxy && f.Kind == Marked }

// isMarked reports whether the socket carries mark 1337.
func (f Flow) isMarked() bool { return f.Kind == OriginalSrc || f.Kind == Marked }

// marksLoopback reports whether the flow is one that gets mark 1338 in TPROXY mode, whatever else is said of it.
func (s settings) marksLoopback(f Flow, who ids) bool {
	return s.tproxy && (who.uid == s.proxyUID || who.gid == s.proxyGID) && f.To.local() && f.To != Loopback &&
		f.Proto == TCP && f.Port != 15008 &&
		f.Src != Passthrough
}

// inboundByMark is the way of a TPROXY sidecar to its own pod: mark 1338, and then the rules for inbound packets.
func (s settings) inboundByMark(f Flow) (Landing, string) {
	if s.capturesInbound(f.Port) {
		return AtInbound, "the proxy calls its own pod"
	}
	return direct, "no inbound port of the mesh"
}

// expectCrafted is about packets that are not the start of a connection.
func (s settings) expectCrafted(f Flow) Outcome {
	switch {
	case s.dropInvalid: // also the late FIN that a packet without a socket answers
		return Outcome{Landed: Silence}
	case f.Kind == Invalid:
		return Outcome{Landed: Reset}
	}
	return Outcome{Landed: AtApp}
}

// expectZone is about the zone of a query: one of its own where it is redirected. DELIBERATE where it is not.
func (s settings) expectZone(f Flow, family Family) Outcome {
	plain := f
	plain.Kind = Plain
	o := s.expect(plain, family)
	if s.none {
		return o // nothing tracks it
	}
	o.Note = map[bool]string{true: "zone 2", false: "zone 0"}[o.Landed == AtDNS]
	return o
}

// expectZones is about two DNS queries from one source port: the app's, and then the proxy's to the server itself.
func (s settings) expectZones(f Flow, family Family) Outcome {
	first := s.expect(Flow{From: FromApp, Proto: UDP, To: f.To, Port: f.Port}, family)
	o := s.reach(f, family)
	o.Note = "app " + string(first.Landed)
	if first.Landed == AtDNS {
		o.Note += ", another zone replied" // without zones the query meets the app's redirection and comes back to the proxy
	}
	return o
}

// reach is what happens to a flow that nothing redirects.
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
	case a.Loopback && family == IPv4: // 127.0.0.6 leaves no pod
		return Outcome{Landed: Kept}
	case s.local(f) && !f.To.local() && family == IPv4: // no answer leaves from an address that is not the pod's
		return Outcome{Landed: Timeout}
	case !a.BothSides() && !slices.Contains(open, f.Port):
		return Outcome{Landed: Refused}
	}
	return Outcome{Landed: landing, Dst: netip.AddrPortFrom(f.To.Addr(family), f.Port).String(), Source: source(f,
		family)}
}

// source is the address that the kernel chooses for the flow where it does not say.
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

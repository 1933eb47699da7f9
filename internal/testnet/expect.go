package testnet

import (
	"net/netip"
	"slices"
)

// Expected says where the flow lands if the pod's rules mean what Istio's mean. The deliberate differences are marked
// with DELIBERATE; the function Deliberate names their flows.
func Expected(p Profile, f Flow, family Family) Outcome {
	return p.settings().expect(f, family)
}

func (s settings) expect(f Flow, family Family) Outcome {
	switch f.Kind {
	case Invalid:
		if s.dropInvalid {
			return Outcome{Landed: Silence}
		}
		return Outcome{Landed: Reset}
	case NoSocket:
		if s.dropInvalid {
			return Outcome{Landed: Silence} // the late FIN that asks for an answer is dropped
		}
		return Outcome{Landed: AtApp}
	case Zones:
		return s.expectZones(f, family)
	case OriginalSrc:
		return s.reach(f, family)
	}
	if f.Proto == ICMP {
		return Outcome{Landed: placeLanding(f.To), Dst: f.To.Addr(family).String()}
	}
	redirected := s.outbound(f, family)
	if !f.From.inPod() {
		redirected = s.inbound(f, family)
	}
	if s.none {
		redirected = ""
	}
	switch {
	case redirected == "":
		return s.reach(f, family)
	case redirected == AtInbound && f.Kind == ListenerDown && s.tproxy:
		return Outcome{Landed: Timeout} // TPROXY drops what no transparent listener takes
	case redirected == AtInbound && f.Kind == ListenerDown:
		return Outcome{Landed: Refused}
	}
	o := Outcome{Landed: redirected, Dst: netip.AddrPortFrom(f.To.Addr(family), f.Port).String(), Source: source(f, family)}
	if redirected == AtDNS && f.Proto == UDP {
		o.Dst = ""
	}
	return o
}

// inbound says which listener a packet from outside the pod is turned to, "" for none.
func (s settings) inbound(f Flow, family Family) Landing {
	link := "eth0"
	if f.From == FromVM {
		link = "net1"
	}
	switch {
	case f.Proto != TCP, slices.Contains(s.excludeInterfaces, link):
		return ""
	case slices.Contains(s.rerouteInterfaces, link): // DELIBERATE in TPROXY mode, where Istio's two redirections collide
		// What comes from a machine behind this pod is treated as outbound, and never as inbound.
		if s.allRanges || contains(s.includeRanges, f.To.Addr(family)) {
			return AtOutbound
		}
		return ""
	case f.Port == 15008: // DELIBERATE in TPROXY mode, where Istio captures it
		return ""
	case s.allInPorts && !slices.Contains(s.excludeInPorts, f.Port), slices.Contains(s.includeInPorts, f.Port):
		return AtInbound
	}
	return ""
}

// outbound says which listener a packet of a party in the pod is turned to, "" for none.
func (s settings) outbound(f Flow, family Family) Landing {
	who, dst, lo := f.From.ids(s), f.To.Addr(family), f.To.local()
	byUID, byGID := who.uid == s.proxyUID, who.gid == s.proxyGID
	isDNS := s.dns && f.Port == 53
	switch {
	case f.To == VM && slices.Contains(s.excludeInterfaces, "net1"), !lo && f.To != VM && slices.Contains(s.excludeInterfaces, "eth0"):
		return ""
	case slices.Contains(s.excludeOutPorts, f.Port):
		return ""
	case lo && f.Src == Passthrough:
		return ""
	case byUID || byGID:
		if !lo || f.To == Loopback || f.Proto != TCP || f.Port == 15008 || isDNS {
			return ""
		}
		if s.tproxy && !byUID {
			return s.inboundByMark(f)
		}
		return AtInbound // DELIBERATE for the group alone, which Istio lets pass
	case lo && !isDNS && !s.loopbackCIDR:
		return ""
	case isDNS && (f.Proto == TCP || f.Proto == UDP):
		return AtDNS
	case f.Proto != TCP, f.To == Loopback, contains(s.excludeRanges, dst):
		return ""
	case s.allOutPorts, slices.Contains(s.includeOutPorts, f.Port), s.allRanges, contains(s.includeRanges, dst):
		return AtOutbound
	}
	return ""
}

// inboundByMark is the way of a TPROXY sidecar to its own pod: mark 1338, and then the rules for inbound packets.
func (s settings) inboundByMark(f Flow) Landing {
	if s.allInPorts && !slices.Contains(s.excludeInPorts, f.Port) || slices.Contains(s.includeInPorts, f.Port) {
		return AtInbound
	}
	return ""
}

// expectZones is about two DNS queries from one source port: the app's, and then the proxy's to the server itself.
func (s settings) expectZones(f Flow, family Family) Outcome {
	first := s.expect(Flow{From: FromApp, Proto: UDP, To: f.To, Port: f.Port}, family)
	o := s.reach(f, family)
	o.Note = "app " + string(first.Landed)
	if first.Landed == AtDNS {
		o.Note += ", zone 1 replied" // without zones the query meets the app's redirection and comes back to the proxy
	}
	return o
}

// reach is what happens to a flow that nothing redirects.
func (s settings) reach(f Flow, family Family) Outcome {
	landing := placeLanding(f.To)
	open := peerPorts
	switch {
	case f.Proto == UDP:
		open = udpPorts
	case landing == AtApp:
		open = appPorts
	}
	if !slices.Contains(open, f.Port) {
		return Outcome{Landed: Refused}
	}
	return Outcome{Landed: landing, Dst: netip.AddrPortFrom(f.To.Addr(family), f.Port).String(), Source: source(f, family)}
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

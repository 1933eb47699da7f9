package testnet

import (
	"math/rand/v2"
	"slices"
	"strings"
)

// RandomProfile draws settings: each key is present or not, with a value that makes a difference for the lab's flows.
func RandomProfile(random *rand.Rand) Profile {
	p := Profile{"random", map[string]any{}}
	for _, key := range randomKeys {
		if random.IntN(3) == 0 {
			p.Settings[key.name] = key.draw(random)
		}
	}
	if random.IntN(2) == 0 {
		p.Settings["mode"] = "TPROXY"
	}
	return p
}

// randomKeys have a fixed order, so that the same source draws the same profile.
var randomKeys = []struct {
	name string
	draw func(*rand.Rand) any
}{
	{"includeOutboundIPRanges", func(r *rand.Rand) any { return some(r, randomPrefixes) }},
	{"excludeOutboundIPRanges", func(r *rand.Rand) any { return some(r, randomPrefixes) }},
	{"includeOutboundPorts", starOr(randomPorts)},
	{"excludeOutboundPorts", func(r *rand.Rand) any { return some(r, randomPorts) }},
	{"includeInboundPorts", starOr(randomPorts)},
	{"excludeInboundPorts", func(r *rand.Rand) any { return some(r, randomPorts) }},
	{"excludeInterfaces", func(r *rand.Rand) any { return some(r, []string{"net1", "net*", "ne*", "eth9", "tap*"}) }},
	{"rerouteVirtualInterfaces", func(r *rand.Rand) any { return some(r, []string{"net1", "n*", "tap0"}) }},
	{"includeOutboundOwnerGroups", starOr(randomGroups)},
	{"excludeOutboundOwnerGroups", func(r *rand.Rand) any { return some(r, randomGroups) }},
	{"families", func(r *rand.Rand) any { return []string{"all", "proxy", "IPv4", "IPv6"}[r.IntN(4)] }},
	{"dnsCapture", func(r *rand.Rand) any { return r.IntN(2) == 0 }},
	{"dropInvalid", func(r *rand.Rand) any { return r.IntN(2) == 0 }},
	{"outboundPort", func(r *rand.Rand) any { return 15100 + r.IntN(9) }},
	{"inboundPort", func(r *rand.Rand) any { return 15110 + r.IntN(9) }},
	{"dnsPort", func(r *rand.Rand) any { return 15120 + r.IntN(9) }},
	{"proxyUID", func(r *rand.Rand) any { return 2000 + r.IntN(9) }},
	{"proxyGID", func(r *rand.Rand) any { return 2010 + r.IntN(9) }},
}

// randomPrefixes contain the lab's addresses and others: wide and narrow, overlapping, with and without host bits.
var randomPrefixes = []string{
	"0.0.0.0/0", "10.0.0.0/8", "10.88.0.0/24", "10.88.0.2/32", "10.88.0.1/31", "10.96.0.0/16", "10.96.0.10/28",
	"127.0.0.0/8", "203.0.113.0/24", "203.0.113.7/32", "192.0.2.0/24",
	"::/0", "fd00::/8", "fd88::/64", "fd88::2/128", "fd96::/64", "fd96::10/124", "::1/128", "2001:db8:7::/48",
	"2001:db8:7::7/128", "2001:db8:9::/48",
}

var randomPorts = []string{"53", "80", "443", "7000", "8080", "8081", "9000", "9090", "15008", "15020", "1", "65535",
	"0-79",
	"8000-8100", "9000-65535", "8081-9090"}

var randomGroups = []string{"0", "5000", "5100", "7000"}

// some draws a list without duplicates, often short, and possibly empty.
func some(random *rand.Rand, items []string) string {
	var list []string
	for _, i := range random.Perm(len(items))[:min(random.IntN(5), len(items))] {
		list = append(list, items[i])
	}
	return strings.Join(list, ",")
}

func starOr(items []string) func(*rand.Rand) any {
	return func(random *rand.Rand) any {
		if random.IntN(3) == 0 {
			return "*"
		}
		return some(random, items)
	}
}

// RandomFlows draws flows in a pod with those settings: any party calls any place at any port. Flows with the mark of a
// TPROXY sidecar come last, in addition to n.
func RandomFlows(random *rand.Rand, p Profile, n int) []Flow {
	s := p.settings()
	parties := []Party{FromApp, FromRoot, FromProxy, FromProxyUID, FromProxyGID, FromPeer, FromVM, FromGroup}
	fromPod := []Place{Pod, Self, Loopback, Loopback2, Peer, Service, Outside, Net1, VM}
	fromOutside := map[Party][]Place{FromPeer: {Pod, Self, VM}, FromVM: {Net1, Peer, Service, Outside}}
	ports := []uint16{53, 80, 443, 7000, 8080, 8081, 9000, 9090, 15008, 15020, 15021, 15090}
	flows := randomEscapes(random, s)
	for len(flows) < n {
		f := Flow{Name: "random", From: parties[random.IntN(len(parties))],
			Proto: []Proto{TCP, TCP, TCP, UDP, ICMP}[random.IntN(5)], Port: ports[random.IntN(len(ports))]}
		places := fromPod
		if !f.From.inPod() {
			places = fromOutside[f.From]
		}
		f.To = places[random.IntN(len(places))]
		switch f.Proto {
		case ICMP:
			f.Port = 0
		case UDP: // the kernel limits the rate of ICMP errors, so the destination must be open
			f.Port = udpPorts[random.IntN(len(udpPorts))]
		}
		if f.From.inPod() && f.To == Pod && f.Proto == TCP && random.IntN(4) == 0 {
			f.Src = Passthrough
		}
		if s.hasNoWayBack(f) {
			continue
		}
		f.Name = f.String()
		flows = append(flows, f)
	}
	if s.tproxy {
		flows = append(flows, randomMarked(random, fromPod, ports)...)
	}
	return flows
}

// randomMarked draws connections of a TPROXY sidecar to its app with the client's address, and of apps with the same
// mark.
func randomMarked(random *rand.Rand, places []Place, ports []uint16) (flows []Flow) {
	for _, from := range []Party{FromProxy, FromProxyUID, FromProxyGID, FromApp, FromRoot, FromGroup} {
		f := Flow{From: from, Proto: TCP, To: places[random.IntN(len(places))], Port: ports[random.IntN(len(ports))],
			Src: Pod, Kind: Marked}
		switch from {
		case FromProxy, FromProxyUID, FromProxyGID:
			f.Kind, f.To = OriginalSrc, []Place{Pod, Self, Net1}[random.IntN(3)]
			f.Src = []Place{Peer, Outside, Pod}[random.IntN(3)]
		}
		f.Name = f.String()
		flows = append(flows, f)
	}
	return flows
}

// randomEscapes draws attempts to get around the sidecar, from any party in the pod to any server. If an attempt uses a
// server's port in the pod, or makes the server call the pod, nothing in the pod may listen there.
func randomEscapes(random *rand.Rand, s settings) (flows []Flow) {
	for _, f := range s.escapes() {
		server := []Place{Peer, Service, Outside}[random.IntN(3)]
		a, _ := f.Kind.attempt()
		switch {
		case a.BothSides():
			f.To = server
		case f.Proto == UDP:
			f.To, f.Port = server, udpPorts[random.IntN(len(udpPorts))]
		case f.From == FromPeer:
			f.Src, f.Port = server, []uint16{80, 443, 7000, 7002, 8090, 9000, 10000}[random.IntN(7)]
		default:
			f.To, f.Port = server, peerPorts[random.IntN(len(peerPorts))]
			if a.TakesServerPort() {
				f.Port = []uint16{80, 443, 9443}[random.IntN(3)]
			}
		}
		if f.From == FromApp {
			f.From = []Party{FromApp, FromApp, FromRoot, FromGroup}[random.IntN(4)]
		}
		if s.hasNoWayBack(f) {
			continue
		}
		f.Name += " " + f.String()
		flows = append(flows, f)
	}
	return flows
}

// hasNoWayBack reports whether a TPROXY pod only forwards the flow: rules that divert established connections to local
// sockets then divert its answers, too.
func (s settings) hasNoWayBack(f Flow) bool {
	return !f.From.inPod() && f.Proto == TCP && !f.To.local() &&
		slices.ContainsFunc([]Family{IPv4, IPv6}, func(family Family) bool {
			landing, _ := s.listener(f, family)
			return s.in(family).tproxy && landing == direct
		})
}

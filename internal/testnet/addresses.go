package testnet

import "net/netip"

// Family is an address family.
type Family int

// The families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// String returns "IPv4" or "IPv6".
func (f Family) String() string {
	if f == IPv6 {
		return "IPv6"
	}
	return "IPv4"
}

// Place is a source or destination, with one address per family.
type Place string

// The places. Every address belongs to one of the lab's namespaces; no packet leaves them.
const (
	Anywhere    Place = ""            // as a source: the kernel chooses
	Pod         Place = "pod"         // the pod's own address, on eth0
	Self        Place = "self"        // a second address of the pod, on lo, like that of a service of this pod
	Loopback    Place = "loopback"    // 127.0.0.1, ::1
	Loopback2   Place = "loopback2"   // 127.0.0.2; IPv6 has no second loopback address
	Passthrough Place = "passthrough" // 127.0.0.6, ::6: the source of the proxy's inbound connections to the app
	Peer        Place = "peer"        // another pod, the pod's next hop
	Service     Place = "service"     // an address in the range of services, at the peer
	Outside     Place = "outside"     // an address outside the cluster, at the peer
	Net1        Place = "net1"        // the pod's address on net1, its second interface
	VM          Place = "vm"          // the machine behind net1
)

var addresses = map[Place][2]string{
	Pod:         {"10.88.0.1", "fd88::1"},
	Self:        {"10.96.0.99", "fd96::99"},
	Loopback:    {"127.0.0.1", "::1"},
	Loopback2:   {"127.0.0.2", ""},
	Passthrough: {"127.0.0.6", "::6"},
	Peer:        {"10.88.0.2", "fd88::2"},
	Service:     {"10.96.0.10", "fd96::10"},
	Outside:     {"203.0.113.7", "2001:db8:7::7"},
	Net1:        {"10.89.0.1", "fd89::1"},
	VM:          {"10.89.0.2", "fd89::2"},
}

// Addr returns the place's address, or the zero Addr if the family has none.
func (p Place) Addr(family Family) netip.Addr {
	pair, known := addresses[p]
	text := pair[0]
	if family == IPv6 {
		text = pair[1]
	}
	if !known || text == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(text)
}

// local reports whether the place is an address of the pod, so that packets from the pod to it use lo.
func (p Place) local() bool {
	switch p {
	case Pod, Self, Loopback, Loopback2, Passthrough, Net1:
		return true
	}
	return false
}

package testnet

import (
	"net/netip"
	"slices"
)

// Reached says who takes a packet that has come to the node of its destination, and to no listener of the sidecar's:
// one of the stand-ins, nobody at a closed port (Refused), or nobody at all (Timeout). of is whether the packet is in
// the pod; what comes out of it may be for the peer or the virtual machine.
func Reached(to netip.AddrPort, proto Proto, inPod bool) Landing {
	landing := AtApp
	if !inPod {
		landing = at(to.Addr())
	}
	open := peerPorts
	switch {
	case landing == Timeout || proto == ICMP:
		return landing
	case proto == UDP:
		open = udpPorts
	case inPod:
		open = appPorts
	}
	if !slices.Contains(open, to.Port()) {
		return Refused
	}
	return landing
}

// at is whose address it is outside the pod.
func at(address netip.Addr) Landing {
	for place, pair := range addresses {
		if !place.local() && (pair[0] == address.String() || pair[1] == address.String()) {
			return placeLanding(place)
		}
	}
	return Timeout
}

// UDPPorts are those at which all stand-ins take datagrams.
var UDPPorts = udpPorts

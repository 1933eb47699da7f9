package testnet

import (
	"net/netip"
	"slices"
)

// Reached returns who receives a packet that has arrived at the node of its destination, but not at a listener of the
// sidecar: one of the stand-ins, nobody at a closed port (Refused), or nobody at all (Timeout). inPod says whether the
// packet is in the pod. A packet that has left the pod may be for the peer or for the virtual machine.
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

// at returns whose address it is outside the pod.
func at(address netip.Addr) Landing {
	for place, pair := range addresses {
		if !place.local() && (pair[0] == address.String() || pair[1] == address.String()) {
			return placeLanding(place)
		}
	}
	return Timeout
}

// UDPPorts are the ports on which all stand-ins receive datagrams.
var UDPPorts = udpPorts

package trace

import (
	"net/netip"
	"slices"

	"github.com/istio-pod-network/controller/plugin/redirect"
)

// Owner is the user and group that a socket was opened by, in the IDs that are seen inside the pod.
type Owner struct{ UID, GID redirect.ID }

// Packet is a packet at its sender. What is not said is the kernel's choice: it opens a connection that nobody knows.
type Packet struct {
	Proto  redirect.Proto // beside TCP and UDP any number of an IP protocol; that has no ports
	Source netip.AddrPort // the zero address: the one that the kernel chooses
	Dest   netip.AddrPort
	In     string // the interface that it arrives by; "": a process of the pod, or the pod's kernel, sends it
	Owner  *Owner // of the socket that sends it; nil: no socket, or one outside the pod
	Mark   uint32 // that the socket gives it (SO_MARK)
	// Later says of a TCP segment that it is none that opens a connection, but an answer or a stray.
	Later bool
	// Invalid says that connection tracking can make nothing of it.
	Invalid bool
	// Conn is the connection that it belongs to, nil for a new one.
	Conn *Conn
}

// Conn is a connection that connection tracking knows, and which nat has judged.
type Conn struct {
	Reply bool // the packet goes the way of the answers
	Mark  uint32
	Zone  uint16
	// Original is the destination of its first packet, before anybody translated it.
	Original netip.AddrPort
	// Led is the destination that nat has given it, the zero one where it has given none.
	Led netip.AddrPort
}

// Family returns the packet's IP family.
func (p Packet) Family() redirect.Family { return familyOf(p.Dest.Addr()) }

func familyOf(address netip.Addr) redirect.Family {
	if address.Is6() {
		return redirect.IPv6
	}
	return redirect.IPv4
}

// hasPorts reports whether the packet's protocol has ports.
func (p Packet) hasPorts() bool { return p.Proto == redirect.TCP || p.Proto == redirect.UDP }

// Pod is the pod as its kernel's routing knows it.
type Pod struct {
	// Links are its interfaces beside lo; what is for nobody else leaves by the first one.
	Links []Link
	// OnLoopback are addresses of lo, beside 127.0.0.0/8, ::1 and those of the rule set.
	OnLoopback []netip.Addr
	// NoInbound says that nobody listens at the sidecar's inbound port.
	NoInbound bool
}

// Link is an interface with its addresses, each with the length of its network's prefix.
type Link struct {
	Name      string
	Addresses []netip.Prefix
}

// loopback is the name of the interface that leads back into the pod.
const loopback = "lo"

// local reports whether an address is one of the pod's.
func (p Pod) local(address netip.Addr) bool {
	return address.IsLoopback() || slices.Contains(p.OnLoopback, address) ||
		slices.ContainsFunc(p.Links, func(l Link) bool { return l.has(address) })
}

func (l Link) has(address netip.Addr) bool {
	return slices.ContainsFunc(l.Addresses, func(p netip.Prefix) bool { return p.Addr() == address })
}

// address returns the first address of a family, the zero Addr if there is none.
func (l Link) address(family redirect.Family) netip.Addr {
	for _, p := range l.Addresses {
		if familyOf(p.Addr()) == family {
			return p.Addr()
		}
	}
	return netip.Addr{}
}

// link returns the interface by which packets for others leave: the one in whose network the address is, else the
// first.
func (p Pod) link(address netip.Addr) Link {
	bits, found := -1, Link{}
	if len(p.Links) > 0 {
		found = p.Links[0]
	}
	for _, l := range p.Links {
		for _, prefix := range l.Addresses {
			if prefix.Masked().Contains(address) && prefix.Bits() > bits {
				bits, found = prefix.Bits(), l
			}
		}
	}
	return found
}

// named returns the interface of that name.
func (p Pod) named(name string) Link {
	for _, l := range p.Links {
		if l.Name == name {
			return l
		}
	}
	return Link{Name: name}
}

// source returns the address that the kernel gives a packet which does not say its own. Source: inet_select_addr in
// net/ipv4/devinet.c, and the local table, whose routes prefer the address that they are for.
func (p Pod) source(to netip.Addr) netip.Addr {
	switch {
	case to.IsLoopback() && to.Is4():
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case p.local(to):
		return to
	}
	return p.link(to).address(familyOf(to))
}

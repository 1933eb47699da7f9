package redirect

import (
	"fmt"
	"hash/fnv"
	"net/netip"
)

// Family is an IP family, by its number.
type Family uint8

// The IP families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Families lists both, in the order in which a family is written where that cannot happen at once: IPv6 first, so that
// a half-written pod already captures what is most often forgotten.
var Families = []Family{IPv6, IPv4}

// String returns the name nftables gives the family.
func (f Family) String() string {
	if f == IPv6 {
		return "ip6"
	}
	return "ip"
}

// addresses returns what differs between the families: the loopback address, the address the sidecar binds to when it
// passes inbound traffic on to the app (Istio's 127.0.0.6 and ::6), and the prefix that is everything.
func (f Family) addresses() (loopback, passthrough, everything netip.Prefix) {
	if f == IPv6 {
		return netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("::6/128"), netip.MustParsePrefix("::/0")
	}
	return netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("127.0.0.6/32"),
		netip.MustParsePrefix("0.0.0.0/0")
}

// RuleSet is everything a network namespace must hold, for both families, in the order in which it must be written
// where it cannot be written at once: routes and addresses, which are inert alone, then raw, mangle, filter and nat.
type RuleSet struct {
	Addresses []Address
	Routes    []PolicyRoute
	Tables    []Table
}

// Address is an address of the loopback interface.
type Address struct {
	Family Family
	Prefix netip.Prefix
}

// PolicyRoute delivers every packet that carries a mark locally: a rule `fwmark Mark lookup Table` and in that table a
// local default route by lo. TPROXY needs it for packets whose destination is not an address of the pod.
type PolicyRoute struct {
	Family Family
	Mark   uint32
	Table  uint32
}

// Kind is the netfilter table that a Table stands for; it fixes at which priority its chains hook in.
type Kind string

// The kinds of table, in the order in which they are written.
const (
	Raw    Kind = "raw"    // before connection tracking
	Mangle Kind = "mangle" // marks, TPROXY
	Filter Kind = "filter" // drops what went around nat; written before it, and in force after it
	NAT    Kind = "nat"    // sees only the first packet of a connection
)

// Table is the chains of one kind and family. A table without chains is not part of a RuleSet.
type Table struct {
	Family Family
	Kind   Kind
	Chains []Chain // a chain stands before the chains that jump to it
}

// Hook is where a chain sees packets.
type Hook string

// The hooks. A regular chain, which only sees packets that another chain sends it, has none.
const (
	Regular    Hook = ""
	Prerouting Hook = "prerouting" // all that arrives, also on lo
	Output     Hook = "output"     // all that the pod's own processes send
	Input      Hook = "input"      // all that arrives for a socket of the pod, also on lo
	Forward    Hook = "forward"    // all that arrives for somebody else
)

// Chain is a named list of rules.
type Chain struct {
	Name  string // Istio's name, e.g. ISTIO_OUTPUT
	Hook  Hook
	Rules []Rule
}

// Rule applies its target to packets that all its matches match.
type Rule struct {
	Matches []Match
	Target  Target
	Why     string // for people who list the rules
}

// Match is one condition on a packet. The set of its implementations is closed: a backend renders each of them.
type Match interface{ isMatch() }

// The conditions. Owner matches have no negated form: iptables' negated owner match also matches packets without a
// socket, nftables' does not, so "not the proxy" is what falls through after a positive match.
type (
	// Proto matches a transport protocol.
	Proto uint8
	// InInterface matches packets that arrive on one of the interfaces; a name may be a prefix, see Interfaces.
	InInterface Interfaces
	// OutInterface matches packets that leave by one of the interfaces, likewise.
	OutInterface Interfaces
	// From matches a source address.
	From []netip.Prefix
	// To matches a destination address.
	To []netip.Prefix
	// NotTo matches every other destination address.
	NotTo netip.Prefix
	// SourcePort matches a source port.
	SourcePort uint16
	// DestPorts matches a destination port; at least one, sorted, and no two ranges overlap or touch each other but
	// single ports.
	DestPorts []PortRange
	// Original matches packets that go the way of their connection's first one, as connection tracking knows it; none that
	// it does not know.
	Original struct{}
	// OriginalDestPorts matches those of which the first one was for one of the ports before anybody translated it; as
	// DestPorts.
	OriginalDestPorts []PortRange
	// OriginalTo matches those of which the first one was for one of the addresses, likewise.
	OriginalTo []netip.Prefix
	// NotDestPorts matches every other destination port; at most 15, for iptables cannot hold more in one rule.
	NotDestPorts []uint16
	// Opening matches TCP segments that open a connection: SYN is set, and FIN, RST and ACK are not.
	Opening struct{}
	// SocketUID matches packets whose socket was opened by the user, in the IDs of the namespace's user namespace.
	SocketUID ID
	// SocketGID matches packets whose socket was opened by the group, likewise.
	SocketGID ID
	// SocketGroups matches packets whose socket was opened by one of the groups, likewise; at least one, sorted.
	SocketGroups []ID
	// Mark matches the packet's mark.
	Mark uint32
	// NotMark matches every other mark.
	NotMark uint32
	// ConnMark matches the mark of the packet's connection.
	ConnMark uint32
	// ConnState matches the state of the packet's connection.
	ConnState string
)

// The transport protocols.
const (
	TCP Proto = 6
	UDP Proto = 17
)

// The connection states.
const (
	Invalid     ConnState = "invalid"
	Established ConnState = "established,related"
)

func (Proto) isMatch()             {}
func (InInterface) isMatch()       {}
func (OutInterface) isMatch()      {}
func (From) isMatch()              {}
func (To) isMatch()                {}
func (NotTo) isMatch()             {}
func (SourcePort) isMatch()        {}
func (DestPorts) isMatch()         {}
func (Original) isMatch()          {}
func (OriginalDestPorts) isMatch() {}
func (OriginalTo) isMatch()        {}
func (NotDestPorts) isMatch()      {}
func (Opening) isMatch()           {}
func (SocketUID) isMatch()         {}
func (SocketGID) isMatch()         {}
func (SocketGroups) isMatch()      {}
func (Mark) isMatch()              {}
func (NotMark) isMatch()           {}
func (ConnMark) isMatch()          {}
func (ConnState) isMatch()         {}

// Target is what a rule does with a packet. The set of its implementations is closed.
type Target interface{ isTarget() }

// The targets, in the words of iptables. Those that only set something let the packet go on to the next rule.
type (
	// Return ends the chain; at the end of a hooked chain the packet passes.
	Return struct{}
	// Accept ends the table.
	Accept struct{}
	// Drop discards the packet.
	Drop struct{}
	// Jump goes through the named chain of the same table.
	Jump string
	// RedirectTo rewrites the destination to a port of the pod itself.
	RedirectTo Port
	// TProxyTo hands the packet, unchanged, to the transparent socket that listens on Port and marks it. Without such a
	// socket the packet is dropped: iptables does that by itself, other backends must say so.
	TProxyTo struct {
		Port Port
		Mark uint32
	}
	// SetMark marks the packet.
	SetMark uint32
	// SaveMark copies the packet's mark to its connection.
	SaveMark struct{}
	// RestoreMark copies the connection's mark to the packet.
	RestoreMark struct{}
	// SetZone puts the packet into a conntrack zone, if no earlier rule has.
	SetZone uint16
)

func (Return) isTarget()      {}
func (Accept) isTarget()      {}
func (Drop) isTarget()        {}
func (Jump) isTarget()        {}
func (RedirectTo) isTarget()  {}
func (TProxyTo) isTarget()    {}
func (SetMark) isTarget()     {}
func (SaveMark) isTarget()    {}
func (RestoreMark) isTarget() {}
func (SetZone) isTarget()     {}

// Rendering is the number of the way in which the backends write a rule set into a kernel. It is raised whenever a
// backend writes the same rule set in another way, so that the hash tells what is in the kernel, and not only what was
// meant: package netfilter's TestRendering holds it.
const Rendering = 2

// Hash identifies what a release writes for the rule set: 16 hex digits, the 64-bit FNV-1a hash of its text without
// comments, and of Rendering. What a kernel lacks and is skipped is not part of it, so that a release has one hash
// on every node. It tells settings and releases apart for people, and for the agent, which looks for pods whose
// rules another release has written; it proves nothing against an adversary, and Check compares the rules themselves.
func (r RuleSet) Hash() string { return r.hash(Rendering) }

func (r RuleSet) hash(rendering int) string {
	sum := fnv.New64a()
	_, _ = fmt.Fprintf(sum, "rendering %d\n%s", rendering, r.text(false))
	return fmt.Sprintf("%016x", sum.Sum64())
}

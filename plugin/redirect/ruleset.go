package redirect

import (
	"fmt"
	"hash/fnv"
	"net/netip"
)

// Family is an IP family, by its version number.
type Family uint8

// The IP families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Families lists both families in the order in which they are written if they cannot be written at once. IPv6 is first:
// it is the family that is most often forgotten, so an incomplete pod already captures it.
var Families = []Family{IPv6, IPv4}

// String returns nftables' name of the family.
func (f Family) String() string {
	if f == IPv6 {
		return "ip6"
	}
	return "ip"
}

// addresses returns what differs between the families: the loopback address; the source address of the sidecar when it
// passes inbound traffic on to the app (Istio's 127.0.0.6 and ::6); and the prefix of all addresses.
func (f Family) addresses() (loopback, passthrough, everything netip.Prefix) {
	if f == IPv6 {
		return netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("::6/128"), netip.MustParsePrefix("::/0")
	}
	return netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("127.0.0.6/32"),
		netip.MustParsePrefix("0.0.0.0/0")
}

// RuleSet is everything that a network namespace must have, for both families, in the order in which it is written if
// it cannot be written at once: addresses and routes, which change nothing alone, then raw, mangle, filter and nat.
type RuleSet struct {
	Addresses []Address
	Routes    []PolicyRoute
	Tables    []Table
}

// Address is an address on the loopback interface.
type Address struct {
	Family Family
	Prefix netip.Prefix
}

// PolicyRoute delivers every packet with a mark locally. It is a rule `fwmark Mark lookup Table`, and in that table a
// local default route by lo. TPROXY needs it for packets whose destination is not an address of the pod.
type PolicyRoute struct {
	Family Family
	Mark   uint32
	Table  uint32
}

// Kind is the iptables table that a Table corresponds to. It determines the priority of the chains' hooks.
type Kind string

// The kinds of tables, in the order in which they are written.
const (
	Raw    Kind = "raw"    // before connection tracking
	Mangle Kind = "mangle" // marks, TPROXY
	Filter Kind = "filter" // drops what got around nat: written before nat, runs after it
	NAT    Kind = "nat"    // sees only the first packet of a connection
)

// Table has the chains of one kind and family. A RuleSet has no table without chains.
type Table struct {
	Family Family
	Kind   Kind
	Chains []Chain // a chain comes before the chains that jump to it
}

// Hook is the netfilter hook from which a chain gets its packets.
type Hook string

// The hooks. A regular chain, which gets packets only by a jump from another chain, has none.
const (
	Regular    Hook = ""
	Prerouting Hook = "prerouting" // packets that arrive, also on lo
	Output     Hook = "output"     // packets that the pod's own processes send
	Input      Hook = "input"      // packets that arrive for a socket of the pod, also on lo
	Forward    Hook = "forward"    // packets that arrive and are forwarded
)

// Chain is a named list of rules.
type Chain struct {
	Name  string // Istio's name, e.g. ISTIO_OUTPUT
	Hook  Hook
	Rules []Rule
}

// Rule applies its target to packets that match all its matches.
type Rule struct {
	Matches []Match
	Target  Target
	Why     string // the comment of the rule, for people who list the rules
}

// Match is one condition on a packet. The set of its types is closed: every backend implements each of them.
type Match interface{ isMatch() }

// The conditions. Owner matches have no negated form, because iptables' negated owner match also matches packets
// without a socket and nftables' does not. "Not the proxy" is what passes a positive match.
type (
	// Proto matches a transport protocol.
	Proto uint8
	// InInterface matches packets that arrive on one of the interfaces. A name may be a prefix: see Interfaces.
	InInterface Interfaces
	// OutInterface matches packets that leave by one of the interfaces. A name may be a prefix: see Interfaces.
	OutInterface Interfaces
	// From matches the source address.
	From []netip.Prefix
	// To matches the destination address.
	To []netip.Prefix
	// NotTo matches every destination address but those of the prefix.
	NotTo netip.Prefix
	// SourcePort matches the source port.
	SourcePort uint16
	// DestPorts matches the destination port. It has at least one range; the ranges are sorted and do not overlap, and
	// only single ports may be neighbours.
	DestPorts []PortRange
	// Original matches packets in the original direction of their connection (conntrack's IP_CT_DIR_ORIGINAL). It does
	// not match packets that conntrack does not know.
	Original struct{}
	// OriginalDestPorts matches packets whose connection had one of the destination ports before any DNAT. It has the
	// form of DestPorts.
	OriginalDestPorts []PortRange
	// OriginalTo matches packets whose connection had one of the destination addresses before any DNAT.
	OriginalTo []netip.Prefix
	// NotDestPorts matches every other destination port. It has at most 15, the limit of one iptables rule.
	NotDestPorts []uint16
	// Opening matches TCP segments that open a connection: with SYN, and without FIN, RST and ACK.
	Opening struct{}
	// SocketUID matches packets whose socket belongs to the user, as seen in the network namespace's user namespace.
	SocketUID ID
	// SocketGID matches packets whose socket belongs to the group, as seen in the network namespace's user namespace.
	SocketGID ID
	// SocketGroups matches packets whose socket belongs to one of the groups. It has at least one, and they are sorted.
	SocketGroups []ID
	// Mark matches the packet's mark.
	Mark uint32
	// NotMark matches every other mark.
	NotMark uint32
	// ConnMark matches the mark of the packet's connection (ct mark).
	ConnMark uint32
	// ConnState matches the state of the packet's connection (ct state).
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

// Target is what a rule does with a packet. The set of its types is closed.
type Target interface{ isTarget() }

// The targets, named as in iptables. Those that only set something let the packet continue with the next rule.
type (
	// Return ends the chain. In a base chain the packet passes.
	Return struct{}
	// Accept ends the table for the packet, which passes.
	Accept struct{}
	// Drop discards the packet.
	Drop struct{}
	// Jump continues in the named chain of the same table.
	Jump string
	// RedirectTo is DNAT to a port of the pod itself (REDIRECT in iptables).
	RedirectTo Port
	// TProxyTo gives the unchanged packet to the transparent socket that listens on Port, and sets Mark. Without such a
	// socket the packet must be dropped: iptables' TPROXY does that, other backends need a rule for it.
	TProxyTo struct {
		Port Port
		Mark uint32
	}
	// SetMark sets the packet's mark.
	SetMark uint32
	// SaveMark copies the packet's mark to its connection.
	SaveMark struct{}
	// RestoreMark copies the connection's mark to the packet.
	RestoreMark struct{}
	// SetZone puts the packet into a conntrack zone, unless an earlier rule has.
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

// Rendering is the number of the form in which the backends write rule sets into a kernel. It is raised when a backend
// writes the same rule set in another form, so that the hash identifies what is in the kernel. TestRendering in package
// netfilter checks it.
const Rendering = 2

// Hash identifies what a release writes for the rule set. It has 16 hex digits: the 64-bit FNV-1a hash of the set's
// text without comments, and of Rendering. What a kernel lacks is part of the hash, although it is skipped, so that a
// release has the same hash on every node. Operators compare settings and releases by it, and the agent finds pods with
// rules of another release. It is not a proof against an attacker: Check compares the rules themselves.
func (r RuleSet) Hash() string { return r.hash(Rendering) }

func (r RuleSet) hash(rendering int) string {
	sum := fnv.New64a()
	_, _ = fmt.Fprintf(sum, "rendering %d\n%s", rendering, r.text(false))
	return fmt.Sprintf("%016x", sum.Sum64())
}

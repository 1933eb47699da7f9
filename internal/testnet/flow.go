package testnet

import (
	"fmt"
	"strings"
)

// Proto is the protocol of a flow.
type Proto string

// The protocols.
const (
	TCP  Proto = "tcp"
	UDP  Proto = "udp"
	ICMP Proto = "icmp" // echo request; ICMPv6 in IPv6
)

// Kind is what is special about a flow.
type Kind string

// The kinds.
const (
	Plain        Kind = ""
	ListenerDown Kind = "listener-down" // nothing listens on the inbound port
	// the listener on the inbound port has no transparent socket, like the wait's probe
	PlainListener Kind = "plain-listener"
	Invalid       Kind = "invalid" // a SYN-ACK without a connection, which conntrack calls INVALID
	Zone          Kind = "zone"    // a DNS query, and its conntrack zone
	Zones         Kind = "zones"   // the app's and then the proxy's DNS query, from the same source port
	// the proxy calls the app with the client's address and mark 1337, as in TPROXY mode
	OriginalSrc Kind = "original-src"
	// an app sets mark 1337 on its socket, which needs a capability
	Marked Kind = "marked"
	// a socket in TIME_WAIT answers a late packet: a new connection for conntrack, without an owner
	NoSocket Kind = "no-socket"
)

// Flow is one attempt to reach something.
type Flow struct {
	Name  string
	From  Party
	Proto Proto
	To    Place
	Port  uint16
	Src   Place // Anywhere: the kernel chooses
	Kind  Kind
	// As is the party as which a DNS answer is sent; "" means the sidecar itself.
	As Party
}

// String describes the flow for a table.
func (f Flow) String() string {
	to := string(f.To)
	if f.Port != 0 {
		to = fmt.Sprintf("%s:%d", f.To, f.Port)
	}
	text := fmt.Sprintf("%s -> %s %s", f.From, f.Proto, to)
	if f.Src != Anywhere {
		text += fmt.Sprintf(" from %s", f.Src)
	}
	if f.Kind != Plain {
		text += fmt.Sprintf(" (%s)", f.Kind)
	}
	if f.As != "" {
		text += fmt.Sprintf(" (answer by %s)", f.As)
	}
	return text
}

// In reports whether the flow exists in the family.
func (f Flow) In(family Family) bool {
	if a, escapes := f.Kind.attempt(); escapes && !a.In(family == IPv6) {
		return false
	}
	return f.To.Addr(family).IsValid() && (f.Src == Anywhere || f.Src.Addr(family).IsValid())
}

// Landing is where a flow has ended.
type Landing string

// The landings.
const (
	AtOutbound  Landing = "outbound-listener"
	AtInbound   Landing = "inbound-listener"
	AtDNS       Landing = "dns-listener"
	AtApp       Landing = "app"
	AtPeer      Landing = "peer"
	AtVM        Landing = "vm"
	Refused     Landing = "refused"     // a reset, or an ICMP error with the same meaning
	Timeout     Landing = "timeout"     // no answer
	Unreachable Landing = "unreachable" // no route, or an ICMP error that says so
	NoAddress   Landing = "no-address"  // the pod does not have the source address
	Reset       Landing = "reset"       // a kernel has answered a packet without a connection with a reset
	Silence     Landing = "silence"     // no kernel has answered
	Kept        Landing = "kept"        // an attempt to get around the sidecar has not reached its destination
	Failed      Landing = "failed"      // the flow itself failed; Note says how
)

// isListener reports whether the landing is one of the sidecar's listeners, which read the original destination from
// conntrack.
func (l Landing) isListener() bool { return l == AtOutbound || l == AtInbound || l == AtDNS }

// Outcome is where a flow landed. It is comparable with ==, and does not change from run to run.
type Outcome struct {
	Landed Landing
	// Dst is the destination as the receiver knows it: the original destination at a TCP listener of the sidecar,
	// otherwise the address that was reached. It is "" without a receiver, and for UDP at the sidecar, which cannot
	// know it.
	Dst string
	// Source is the client's address as the receiver sees it, with " (port changed)" if the port has changed.
	Source string
	// Note is a result of some kinds of flow only.
	Note string
}

// String returns one line for a table.
func (o Outcome) String() string {
	parts := []string{string(o.Landed)}
	if o.Dst != "" {
		parts = append(parts, "for "+o.Dst)
	}
	if o.Source != "" {
		parts = append(parts, "from "+o.Source)
	}
	if o.Note != "" {
		parts = append(parts, "["+o.Note+"]")
	}
	return strings.Join(parts, " ")
}

// Result is a flow with its actual and its expected outcome.
type Result struct {
	Flow      Flow
	Family    Family
	Got, Want Outcome
}

// OK reports whether the flow landed where it should. Some attempts may also fail where they could succeed. One that
// needs a helper fails if conntrack does not take the rest for an answer. One whose answer is dropped depends on
// sequence numbers, and so on time, for the first segment of the answer. One from an address that nobody outside has a
// route to may get no answer. If the answer to a plain call is lost, the server may lose the connection before it can
// tell the caller's name.
func (r Result) OK() bool {
	want := r.Want
	mayBeLost := want.Note == perhaps
	if mayBeLost {
		want.Note = ""
	}
	astray := r.Flow.Kind == Plain && r.Flow.Proto == TCP && (mayBeLost || want.Unheard()) && r.Got.Unheard()
	return r.Got == want || r.Hopes() && r.Got.Landed == Kept || astray && r.Got.Landed == want.Landed
}

// Hopes reports whether the flow is an attempt that may also fail.
func (r Result) Hopes() bool {
	a, escapes := r.Flow.Kind.attempt()
	return escapes && (a.Helped || a.BothSides() || a.Loopback || r.Want.Note == unheard)
}

// String returns one line.
func (r Result) String() string {
	line := fmt.Sprintf("%s %s: %s", r.Family, r.Flow.Name, r.Got)
	if !r.OK() {
		line += fmt.Sprintf("; want %s", r.Want)
	}
	return line
}

package testnet

import (
	"fmt"
	"strings"
)

// Proto is what a flow sends.
type Proto string

// The protocols.
const (
	TCP  Proto = "tcp"
	UDP  Proto = "udp"
	ICMP Proto = "icmp" // echo request; ICMPv6 in IPv6
)

// Kind says what is special about a flow.
type Kind string

// The kinds.
const (
	Plain        Kind = ""
	ListenerDown Kind = "listener-down" // while nobody listens on the inbound port
	// while who listens there has no transparent socket, as one who looks for the rules by a connection
	PlainListener Kind = "plain-listener"
	Invalid       Kind = "invalid" // a SYN-ACK out of the blue, which conntrack calls INVALID
	Zone          Kind = "zone"    // a DNS query, and the conntrack zone that it is in
	Zones         Kind = "zones"   // the app's and then the proxy's DNS query from the same source port
	// the proxy calls the app with the client's address and mark 1337, as in TPROXY mode
	OriginalSrc Kind = "original-src"
	// an app gives its socket mark 1337, which takes a capability
	Marked Kind = "marked"
	// a TIME_WAIT answers a late packet: a new connection for conntrack, owned by nobody
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
	// As names the party that a DNS answer is sent as, "" for the sidecar itself.
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

// In says whether the flow exists in the family.
func (f Flow) In(family Family) bool {
	if a, escapes := f.Kind.attempt(); escapes && !a.In(family == IPv6) {
		return false
	}
	return f.To.Addr(family).IsValid() && (f.Src == Anywhere || f.Src.Addr(family).IsValid())
}

// Landing is where a flow ended.
type Landing string

// The landings.
const (
	AtOutbound  Landing = "outbound-listener"
	AtInbound   Landing = "inbound-listener"
	AtDNS       Landing = "dns-listener"
	AtApp       Landing = "app"
	AtPeer      Landing = "peer"
	AtVM        Landing = "vm"
	Refused     Landing = "refused"     // a reset, or an ICMP error that means the same
	Timeout     Landing = "timeout"     // no answer at all
	Unreachable Landing = "unreachable" // no route, or an ICMP error that says so
	NoAddress   Landing = "no-address"  // the pod has not the address that it was to come from
	Reset       Landing = "reset"       // a kernel answered a packet that fits no connection
	Silence     Landing = "silence"     // no kernel did
	Kept        Landing = "kept"        // an attempt to escape has not reached those whom it was meant for
	Failed      Landing = "failed"      // the attempt itself went wrong; Note says how
)

// isListener says whether the landing is one of the sidecar's, which ask conntrack for the destination.
func (l Landing) isListener() bool { return l == AtOutbound || l == AtInbound || l == AtDNS }

// Outcome is where a flow landed. It can be compared with ==; nothing in it changes from run to run.
type Outcome struct {
	Landed Landing
	// Dst is the destination as the receiver knows it: the original one at a TCP listener of the sidecar, else the
	// address that was reached; "" where there is no receiver, and for UDP at the sidecar, which cannot know.
	Dst string
	// Source is the client's address as the receiver sees it, with " (port changed)" where that is so.
	Source string
	// Note holds what only some kinds of flow find out.
	Note string
}

// String is one line for a table.
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

// Result is a flow with what happened and what should have.
type Result struct {
	Flow      Flow
	Family    Family
	Got, Want Outcome
}

// OK says that the flow landed where it should. An attempt that needs somebody outside may come to nothing where it may
// go through: that connection tracking takes the rest for an answer is what it hopes for, and not what it is owed. So
// may one whose answer is lost: that the answer's first segment passes hangs on sequence numbers, and so on time. And
// so may one from an address that nobody outside may know the way to. Who is called, and whose answer goes astray, may
// have lost the connection before it can say who has called.
func (r Result) OK() bool {
	want := r.Want
	mayBeLost := want.Note == perhaps
	if mayBeLost {
		want.Note = ""
	}
	astray := r.Flow.Kind == Plain && r.Flow.Proto == TCP && (mayBeLost || want.Unheard()) && r.Got.Unheard()
	return r.Got == want || r.Hopes() && r.Got.Landed == Kept || astray && r.Got.Landed == want.Landed
}

// Hopes reports whether the flow is an attempt that may come to nothing in this way.
func (r Result) Hopes() bool {
	a, escapes := r.Flow.Kind.attempt()
	return escapes && (a.Helped || a.BothSides() || a.Loopback || r.Want.Note == unheard)
}

// String is one line.
func (r Result) String() string {
	line := fmt.Sprintf("%s %s: %s", r.Family, r.Flow.Name, r.Got)
	if !r.OK() {
		line += fmt.Sprintf("; want %s", r.Want)
	}
	return line
}

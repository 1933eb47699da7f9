package trace

import (
	"net/netip"

	"github.com/istio-pod-network/controller/plugin/redirect"
)

// Rules are what a packet meets: a rule set, and the settings that it comes of, which tell the sidecar's ports.
type Rules struct {
	redirect.RuleSet
	Spec redirect.Spec
	// Iptables says that iptables holds the rules, which takes several for a list.
	Iptables bool
	// Foreign are chains of somebody else in the same pod, in the order in which the kernel asks those of one priority;
	// ours come before them.
	Foreign []Foreign
}

// Foreign is a base chain that is not ours.
type Foreign struct {
	Name     string
	Kind     redirect.Kind
	Hook     redirect.Hook
	Family   redirect.Family
	Priority int
	Rules    []Rule
}

// Rule is a rule of a foreign chain: its target is one of package redirect, but for Jump, or one of this package.
type Rule struct {
	Matches []redirect.Match
	Target  any
	Why     string
}

type (
	// TranslateTo rewrites the destination (DNAT); of a port 0 the packet's own stays.
	TranslateTo netip.AddrPort
	// Untrack keeps connection tracking from the packet.
	Untrack struct{}
)

// Landing is where a packet ends.
type Landing string

// The landings. Whether somebody listens there is not known, but for the sidecar's inbound listener.
const (
	Outbound Landing = "outbound listener" // of the sidecar, as the next two
	Inbound  Landing = "inbound listener"
	DNS      Landing = "DNS listener"
	InPod    Landing = "pod"     // a port of the pod: the app's, or the sidecar's own
	Outside  Landing = "outside" // it leaves the pod
	Dropped  Landing = "dropped"
)

// Listener reports whether the landing is one of the sidecar's that take what is redirected.
func (l Landing) Listener() bool { return l == Outbound || l == Inbound || l == DNS }

// Way is a packet's way through the pod.
type Way struct {
	Packet Packet // as it was sent, with the source that the kernel has chosen
	Sender Party
	Steps  []Step
	Landed Landing
	Link   string         // by which it leaves, where it lands outside
	Dest   netip.AddrPort // where it is delivered or sent
	// Original is the destination as the receiver can know it: of what was redirected the one before that.
	Original netip.AddrPort
	Zone     uint16 // of connection tracking
	Mark     uint32 // of the packet at the end
	ConnMark uint32 // of its connection
	Tracked  bool   // connection tracking knows its connection
	Taken    bool   // TPROXY has given it to the listener, so its destination stays
	Answer   bool   // it belongs to a connection that was known before
	sidecars bool   // the port of the pod where it lands is one of the sidecar's own
}

// Step is one thing that happens to a packet.
type Step struct {
	Hook  redirect.Hook // "" for what is no hook: routing, and the ends of the way
	Kind  redirect.Kind // of the chain
	Chain string        // by Istio's name, or a foreign chain's; "" for what no rule does
	Rule  int           // its number in the chain, from 1; 0 for what no rule does
	Why   string        // what the rule is for, or what happens
	// Missed says why the rule does not take the packet; "" if it does.
	Missed string
	// Decides says that the packet lands where it does because of this step.
	Decides bool
	family  redirect.Family
	rule    Rule
	foreign bool
	words   bool // those of iptables
}

// Trace walks the packet through the pod.
func (r Rules) Trace(pod Pod, p Packet) Way {
	w := r.walkOf(pod, p)
	if p.In == "" {
		w.send()
	} else {
		w.arrive(p.In)
	}
	return w.end()
}

// AnswerTo walks the first answer to a packet that has landed in the pod back to who sent that; owner is whose socket
// answers.
func (r Rules) AnswerTo(pod Pod, way Way, owner *Owner) Way {
	source := way.Dest
	if way.Taken {
		source = way.Original
	}
	return r.Trace(pod, way.answered(Packet{Source: source, Owner: owner}))
}

// AnswerFrom walks the first answer to a packet that has left the pod, as it comes back.
func (r Rules) AnswerFrom(pod Pod, way Way) Way {
	return r.Trace(pod, way.answered(Packet{Source: way.Dest, In: way.Link}))
}

// answered fills in what all answers to the packet have. That to a packet which connection tracking does not know opens
// a connection to it, where it is a datagram or a later segment of TCP (net.netfilter.nf_conntrack_tcp_loose), and else
// is invalid.
func (way Way) answered(p Packet) Packet {
	p.Proto, p.Dest, p.Later = way.Packet.Proto, way.Packet.Source, true
	if way.Tracked {
		p.Conn = &Conn{Reply: true, Mark: way.ConnMark, Zone: way.Zone, Original: way.Packet.Dest}
	} else {
		p.Invalid = p.Proto != redirect.UDP && (p.Proto != redirect.TCP || !way.Packet.Later)
	}
	return p
}

func (r Rules) walkOf(pod Pod, p Packet) *walk {
	for _, a := range r.Addresses {
		pod.OnLoopback = append(pod.OnLoopback[:len(pod.OnLoopback):len(pod.OnLoopback)], a.Prefix.Addr())
	}
	if !p.Source.Addr().IsValid() {
		p.Source = netip.AddrPortFrom(pod.source(p.Dest.Addr()), p.Source.Port())
	}
	return &walk{rules: r, pod: pod, packet: p, way: Way{Packet: p, Sender: r.party(p)}}
}

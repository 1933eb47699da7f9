package testnet

import (
	"net/netip"

	"github.com/istio-pod-network/controller/internal/escape"
)

// Sent describes a flow's first packet, for predictions by other means than Expected.
type Sent struct {
	UID, GID     int    // of the socket, if the pod sends it
	Link         string // the pod's interface on which it arrives; "" if the pod sends it
	Source, Dest netip.AddrPort
	Mark         uint32
	Local        bool // the packet stays in the pod
}

// Sent describes the flow's first packet. If the kernel chooses the source, its address is the zero Addr.
func (f Flow) Sent(p Profile, family Family) Sent {
	s := p.settings().in(family)
	who := f.From.ids(s)
	sent := Sent{UID: who.uid, GID: who.gid, Source: netip.AddrPortFrom(netip.Addr{}, firstPort),
		Dest: netip.AddrPortFrom(f.To.Addr(family), f.Port), Local: s.local(f)}
	from := f.Src
	switch f.From {
	case FromPeer:
		sent.Link = "eth0"
		if from == Anywhere {
			from = Peer
		}
	case FromVM:
		sent.Link = "net1"
		if from == Anywhere {
			from = VM
		}
	}
	if from != Anywhere {
		sent.Source = netip.AddrPortFrom(from.Addr(family), firstPort)
	}
	if f.isMarked() {
		sent.Mark = proxyMark
	}
	return sent
}

// proxyMark is the mark that a sidecar sets on its sockets in TPROXY mode.
const proxyMark = 1337

// Attempt returns the attempt of the flow, if it is an attempt to get around the sidecar.
func (f Flow) Attempt() (escape.Attempt, bool) { return f.Kind.attempt() }

// IDs returns the user and group of a party in a pod with those settings.
func (p Party) IDs(profile Profile) (uid, gid int) {
	who := p.ids(profile.settings())
	return who.uid, who.gid
}

// Direct returns the outcome of a flow that is neither redirected nor dropped.
func Direct(p Profile, f Flow, family Family) Outcome {
	if f.Proto == ICMP {
		return Outcome{Landed: placeLanding(f.To), Dst: f.To.Addr(family).String()}
	}
	return p.settings().in(family).reach(f, family)
}

// Unheard reports whether the flow has reached, or should reach, a server whose answer does not arrive.
func (o Outcome) Unheard() bool { return o.Note == unheard }

// WithoutAnswer returns the outcome, with the expectation that the answer does not arrive.
func (o Outcome) WithoutAnswer() Outcome {
	o.Note = unheard
	return o
}

// PerhapsAnswered returns the outcome, with the expectation that the answer may or may not arrive, depending on time.
func (o Outcome) PerhapsAnswered() Outcome {
	o.Note = perhaps
	return o
}

const perhaps = "an answer may come back"

// LinkTo returns the pod's interface by which packets to a place outside leave.
func LinkTo(to Place) string { return link(to) }

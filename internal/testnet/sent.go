package testnet

import (
	"net/netip"

	"github.com/istio-pod-network/controller/internal/escape"
)

// Sent is what a flow's first packet looks like, for who predicts its way by other means than Expected.
type Sent struct {
	UID, GID     int    // of the socket, where the pod sends it
	Link         string // the pod's interface by which it arrives, "" where the pod sends it
	Source, Dest netip.AddrPort
	Mark         uint32
	Local        bool // the packet does not leave the pod
}

// Sent describes the flow's first packet; of a source that the kernel chooses the address is the zero Addr.
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

// proxyMark is the one that a sidecar in TPROXY mode gives its sockets.
const proxyMark = 1337

// Attempt returns what the flow tries, if it is an attempt to get around the sidecar.
func (f Flow) Attempt() (escape.Attempt, bool) { return f.Kind.attempt() }

// IDs returns the user and group of a party in a pod with those settings.
func (p Party) IDs(profile Profile) (uid, gid int) {
	who := p.ids(profile.settings())
	return who.uid, who.gid
}

// Direct is the outcome of a flow that nothing redirects or drops.
func Direct(p Profile, f Flow, family Family) Outcome {
	if f.Proto == ICMP {
		return Outcome{Landed: placeLanding(f.To), Dst: f.To.Addr(family).String()}
	}
	return p.settings().in(family).reach(f, family)
}

// Unheard reports whether the flow has reached somebody whose answer has not come back, or would be expected to.
func (o Outcome) Unheard() bool { return o.Note == unheard }

// WithoutAnswer is an outcome whose answer does not come back.
func (o Outcome) WithoutAnswer() Outcome {
	o.Note = unheard
	return o
}

// PerhapsAnswered is an outcome whose answer may or may not come back: that hangs on time.
func (o Outcome) PerhapsAnswered() Outcome {
	o.Note = perhaps
	return o
}

const perhaps = "an answer may come back"

// LinkTo is the interface of the pod by which packets to a place outside leave.
func LinkTo(to Place) string { return link(to) }

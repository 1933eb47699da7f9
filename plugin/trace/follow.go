package trace

import (
	"net/netip"

	"github.com/istio-pod-network/controller/plugin/redirect"
)

// Party is who sends a packet.
type Party string

// The parties.
const (
	App     Party = "the app"
	Sidecar Party = "the sidecar"
	Others  Party = "outside"
)

// party says who sends a packet, by its owner.
func (r Rules) party(p Packet) Party {
	switch {
	case p.In != "":
		return Others
	case p.Owner != nil && r.isSidecar(*p.Owner):
		return Sidecar
	}
	return App
}

func (r Rules) isSidecar(o Owner) bool {
	return o.UID == r.Spec.ProxyUID || o.GID == r.Spec.ProxyGID && o.GID != 0
}

// SidecarOwner is whose sockets the sidecar's are: in TPROXY mode Istio's injector runs it as root, with its group.
func (r Rules) SidecarOwner() *Owner {
	if r.Spec.Mode == redirect.ModeTProxy && r.Spec.ProxyGID != 0 {
		return &Owner{GID: r.Spec.ProxyGID}
	}
	return &Owner{UID: r.Spec.ProxyUID, GID: r.Spec.ProxyGID}
}

// Follow walks the packet, and where it lands with the sidecar, the one that the sidecar then sends: on to its
// destination, or to the app, from 127.0.0.6 or ::6 or, with TPROXY, from the client's address. Where the sidecar sends
// something else, as its configuration may say, that is not known here.
func (r Rules) Follow(pod Pod, p Packet) []Way {
	way := r.Trace(pod, p)
	ways := []Way{way}
	on := Packet{Proto: p.Proto, Dest: way.Original, Owner: r.SidecarOwner()}
	switch way.Landed {
	case Outbound, DNS:
	case Inbound:
		on.Source = netip.AddrPortFrom(passthrough(p.Family()), 0)
		if r.Spec.Mode == redirect.ModeTProxy {
			on.Source, on.Mark = netip.AddrPortFrom(p.Source.Addr(), 0), proxyMark
		}
	default:
		return ways
	}
	return append(ways, r.Trace(pod, on))
}

// proxyMark is what a sidecar in TPROXY mode gives the sockets by which it calls its app with the client's address.
// Source: original_src_mark in istio/istio pilot/pkg/networking/core/listener_inbound.go, and the rules' own mark.
const proxyMark = 1337

// passthrough is the address from which the sidecar calls its app. Source: InboundPassthroughBindIpv4 and Ipv6 in
// istio/istio pilot/pkg/networking/core/cluster.go.
func passthrough(family redirect.Family) netip.Addr {
	if family == redirect.IPv6 {
		return netip.MustParseAddr("::6")
	}
	return netip.MustParseAddr("127.0.0.6")
}

package trace

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/plugin/redirect"
)

// missed says why a rule's condition does not hold for the packet, "" if it does.
func (w *walk) missed(match redirect.Match) string {
	switch m := match.(type) {
	case redirect.InInterface:
		return unless(named(m, w.in), "it arrives by "+w.in)
	case redirect.OutInterface:
		return unless(named(m, w.out), "it leaves by "+w.out)
	case redirect.SocketUID, redirect.SocketGID, redirect.SocketGroups:
		return w.missedOwner(match)
	case redirect.Original, redirect.OriginalDestPorts, redirect.OriginalTo, redirect.ConnMark, redirect.ConnState:
		return w.missedConn(match)
	case redirect.Mark:
		return unless(w.packet.Mark == uint32(m), fmt.Sprintf("its mark is %d", w.packet.Mark))
	case redirect.NotMark:
		return unless(w.packet.Mark != uint32(m), fmt.Sprintf("its mark is %d", w.packet.Mark))
	}
	return missedHeader(w.packet, match)
}

// missedHeader is about what stands in the packet's headers.
func missedHeader(p Packet, match redirect.Match) string {
	source, dest := p.Source, p.Dest
	switch m := match.(type) {
	case redirect.Proto:
		return unless(p.Proto == m, "it is "+protoText(p.Proto))
	case redirect.From:
		return unless(within(m, source.Addr()), "it is from "+source.Addr().String())
	case redirect.To:
		return unless(within(m, dest.Addr()), "it is to "+dest.Addr().String())
	case redirect.NotTo:
		return unless(!netip.Prefix(m).Contains(dest.Addr()), "it is to "+dest.Addr().String())
	case redirect.SourcePort:
		return unless(p.hasPorts() && source.Port() == uint16(m), fmt.Sprint("its source port is ", source.Port()))
	case redirect.DestPorts:
		return unless(p.hasPorts() && inPorts(m, dest.Port()), fmt.Sprint("its port is ", dest.Port()))
	case redirect.NotDestPorts:
		return unless(p.hasPorts() && !slices.Contains(m, dest.Port()), fmt.Sprint("its port is ", dest.Port()))
	case redirect.Opening:
		return unless(p.Proto == redirect.TCP && !p.Later, "it opens no TCP connection")
	}
	panic(fmt.Sprintf("trace: no meaning of %T", match))
}

// missedOwner is about the socket that sends the packet.
func (w *walk) missedOwner(match redirect.Match) string {
	owner := w.packet.Owner
	if owner == nil {
		return "no socket of the pod sends it"
	}
	switch m := match.(type) {
	case redirect.SocketUID:
		return unless(owner.UID == redirect.ID(m), "its user is "+owner.UID.String())
	case redirect.SocketGID:
		return unless(owner.GID == redirect.ID(m), "its group is "+owner.GID.String())
	case redirect.SocketGroups:
		return unless(slices.Contains(m, owner.GID), "its group is "+owner.GID.String())
	}
	panic(fmt.Sprintf("trace: no meaning of %T", match))
}

// missedConn is about the connection that connection tracking has the packet belong to.
func (w *walk) missedConn(match redirect.Match) string {
	if m, is := match.(redirect.ConnState); is {
		switch m {
		case redirect.Invalid:
			if w.conn.untracked {
				return "connection tracking is kept from it"
			}
			return unless(w.packet.Invalid, "it belongs to a connection, or begins one")
		case redirect.Established:
			return unless(w.conn.known && w.conn.established, "its connection is new")
		}
		panic(fmt.Sprintf("trace: no meaning of state %q", m))
	}
	if !w.conn.known {
		return "it belongs to no connection"
	}
	if m, is := match.(redirect.ConnMark); is {
		return unless(w.conn.mark == uint32(m), fmt.Sprintf("its connection's mark is %d", w.conn.mark))
	}
	if w.conn.reply {
		return "it is an answer"
	}
	original := w.conn.original
	switch m := match.(type) {
	case redirect.Original:
		return ""
	case redirect.OriginalDestPorts:
		return unless(inPorts(m, original.Port()), fmt.Sprint("its first port was ", original.Port()))
	case redirect.OriginalTo:
		return unless(within(m, original.Addr()), "it was to "+original.Addr().String())
	}
	panic(fmt.Sprintf("trace: no meaning of %T", match))
}

// unless returns why, or nothing if it holds.
func unless(holds bool, why string) string {
	if holds {
		return ""
	}
	return why
}

// named reports whether a list of interfaces has one, perhaps by a prefix of its name.
func named(list []string, name string) bool {
	return slices.ContainsFunc(list, func(item string) bool {
		prefix, isPrefix := redirect.InterfacePrefix(item)
		return item == name || isPrefix && strings.HasPrefix(name, prefix)
	})
}

func within(list []netip.Prefix, address netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(address) })
}

func inPorts(list []redirect.PortRange, port uint16) bool {
	return slices.ContainsFunc(list, func(r redirect.PortRange) bool { return r.First <= port && port <= r.Last })
}

// protoText names a protocol.
func protoText(p redirect.Proto) string {
	switch p {
	case redirect.TCP, redirect.UDP:
		return p.String()
	case 1, 58:
		return "icmp"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

package look

import (
	"encoding/binary"
	"net/netip"

	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

// Numbers of include/uapi/linux/netfilter/nfnetlink_conntrack.h.
const (
	ctDelete        = 2  // IPCTNL_MSG_CT_DELETE
	ctTupleOriginal = 1  // CTA_TUPLE_ORIG
	ctZone          = 18 // CTA_ZONE
	ctTupleIP       = 1  // CTA_TUPLE_IP
	ctTupleProto    = 2  // CTA_TUPLE_PROTO
	ctProtoNumber   = 1  // CTA_PROTO_NUM
	ctProtoFrom     = 2  // CTA_PROTO_SRC_PORT
	ctProtoTo       = 3  // CTA_PROTO_DST_PORT
)

// forget has connection tracking forget the packet. It remembers one that lo has carried, for the kernel confirms a
// connection behind the hook postrouting, before lo: for two minutes whoever in the pod calls the same address from the
// same port would be sent where the packet was. A kernel without nf_conntrack_netlink forgets it after that time.
func (l *listener) forget() {
	if (l.first == header{} || l.known) {
		return
	}
	family, from, to := uint8(unix.NFPROTO_IPV4), uint16(1), uint16(2) // CTA_IP_V4_SRC, CTA_IP_V4_DST
	if l.first.to.Addr().Is6() {
		family, from, to = unix.NFPROTO_IPV6, 3, 4 // CTA_IP_V6_SRC, CTA_IP_V6_DST
	}
	port := func(kind uint16, of netip.AddrPort) netlink.Attribute {
		return netlink.Bytes(kind, binary.BigEndian.AppendUint16(nil, of.Port()))
	}
	tuple := netlink.Nested(ctTupleOriginal,
		netlink.Nested(ctTupleIP, netlink.Bytes(from, l.first.from.Addr().AsSlice()),
			netlink.Bytes(to, l.first.to.Addr().AsSlice())),
		netlink.Nested(ctTupleProto, netlink.Bytes(ctProtoNumber, []byte{l.first.proto}),
			port(ctProtoFrom, l.first.from), port(ctProtoTo, l.first.to)))
	for _, zone := range []uint16{0, redirect.ZoneApp} { // what nobody has confirmed is in none
		_ = l.owner.Execute(netlink.Message{Kind: unix.NFNL_SUBSYS_CTNETLINK<<8 | ctDelete, Header: []byte{family, 0, 0, 0},
			Attributes: []netlink.Attribute{tuple, netlink.Bytes(ctZone, binary.BigEndian.AppendUint16(nil, zone))}})
	}
}

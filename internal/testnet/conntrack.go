package testnet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Constants of ctnetlink (include/uapi/linux/netfilter/nfnetlink_conntrack.h).
const (
	ctGet        = 1<<8 | 1 // NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
	ctDelete     = 1<<8 | 2
	ctTupleOrig  = 1
	ctStatus     = 3
	ctZone       = 18
	ctTupleIP    = 1
	ctTupleProto = 2
	ctProtoNum   = 1
	ctSrcPort    = 2
	ctDstPort    = 3
	seenReply    = 1 << 1 // IPS_SEEN_REPLY
	attrTypeMask = 0x3fff // without the flags NLA_F_NESTED and NLA_F_NET_BYTEORDER
)

// entry has the fields of a conntrack entry that this package uses.
type entry struct {
	srcPort, dstPort uint16
	zone             uint16
	replied          bool
}

// Reset makes all kernels forget all connections, so that the next flows are not affected by earlier ones.
func (l *Lab) Reset() error {
	servers := l.servers
	if l.sidecar != nil {
		servers = append(slices.Clone(servers), l.sidecar.server)
	}
	for _, s := range servers {
		if err := s.forget(); err != nil {
			return fmt.Errorf("ending connections: %w", err)
		}
	}
	return l.flush()
}

// flush deletes all conntrack entries of the pod. Open connections stay open.
func (l *Lab) flush() error {
	_, err := l.ctnetlink(ctDelete, unix.NLM_F_ACK, unix.AF_UNSPEC, nil)
	if err != nil {
		return fmt.Errorf("flushing conntrack: %w", err)
	}
	return nil
}

// query returns the conntrack entry of a datagram's connection in the zone, by its original addresses and ports. It
// requests this one entry: a dump covers all network namespaces, and its time grows with the size of the hash table.
func (l *Lab) query(src, dst netip.AddrPort, zone uint16) (e entry, found bool, err error) {
	af, tuple := tupleOf(unix.IPPROTO_UDP, src, dst)
	attrs := attr(ctTupleOrig|unix.NLA_F_NESTED, tuple)
	if zone != 0 {
		attrs = append(attrs, attr(ctZone, binary.BigEndian.AppendUint16(nil, zone))...)
	}
	messages, err := l.ctnetlink(ctGet, unix.NLM_F_ACK, af, attrs)
	if errors.Is(err, unix.ENOENT) {
		return e, false, nil
	}
	if err != nil {
		return e, false, fmt.Errorf("looking up a conntrack entry: %w", err)
	}
	for _, message := range messages {
		eachAttr(message[4:], func(kind uint16, value []byte) { // after struct nfgenmsg
			switch kind {
			case ctTupleOrig:
				e.readTuple(value)
			case ctStatus:
				e.replied = binary.BigEndian.Uint32(value)&seenReply != 0
			case ctZone:
				e.zone = binary.BigEndian.Uint16(value)
			}
		})
	}
	return e, e.srcPort == src.Port() && e.dstPort == dst.Port() && e.zone == zone, nil
}

func (e *entry) readTuple(tuple []byte) {
	eachAttr(tuple, func(kind uint16, value []byte) {
		if kind != ctTupleProto {
			return
		}
		eachAttr(value, func(kind uint16, value []byte) {
			switch kind {
			case ctSrcPort:
				e.srcPort = binary.BigEndian.Uint16(value)
			case ctDstPort:
				e.dstPort = binary.BigEndian.Uint16(value)
			}
		})
	})
}

// eachAttr calls visit for each netlink attribute.
func eachAttr(raw []byte, visit func(kind uint16, value []byte)) {
	for len(raw) >= 4 {
		size := int(binary.NativeEndian.Uint16(raw))
		if size < 4 || size > len(raw) {
			return
		}
		visit(binary.NativeEndian.Uint16(raw[2:])&attrTypeMask, raw[4:size])
		raw = raw[min((size+3)&^3, len(raw)):]
	}
}

// forget deletes the conntrack entry of one TCP connection. It is no error if there is none.
func (l *Lab) forget(src, dst netip.AddrPort) error {
	af, tuple := tupleOf(unix.IPPROTO_TCP, src, dst)
	_, err := l.ctnetlink(ctDelete, unix.NLM_F_ACK, af, attr(ctTupleOrig|unix.NLA_F_NESTED, tuple))
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("deleting a conntrack entry: %w", err)
	}
	return nil
}

// tupleOf returns the address family, and the attributes of a tuple.
func tupleOf(proto byte, src, dst netip.AddrPort) (af byte, tuple []byte) {
	kindOf := [2]uint16{1, 2} // CTA_IP_V4_SRC, CTA_IP_V4_DST
	af = unix.AF_INET
	if src.Addr().Is6() {
		kindOf, af = [2]uint16{3, 4}, unix.AF_INET6
	}
	ip := slices.Concat(attr(kindOf[0], src.Addr().AsSlice()), attr(kindOf[1], dst.Addr().AsSlice()))
	ports := slices.Concat(attr(ctProtoNum, []byte{proto}),
		attr(ctSrcPort, binary.BigEndian.AppendUint16(nil, src.Port())),
		attr(ctDstPort, binary.BigEndian.AppendUint16(nil, dst.Port())))
	return af, slices.Concat(attr(ctTupleIP|unix.NLA_F_NESTED, ip), attr(ctTupleProto|unix.NLA_F_NESTED, ports))
}

// attr returns one netlink attribute.
func attr(kind uint16, value []byte) []byte {
	raw := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	raw = append(binary.NativeEndian.AppendUint16(raw, kind), value...)
	return append(raw, make([]byte, -len(raw)&3)...)
}

// ctnetlink sends one request to the pod's kernel and returns the payloads of the replies.
func (l *Lab) ctnetlink(kind, flags uint16, family byte, attrs []byte) (payloads [][]byte, err error) {
	fd := -1
	l.pod.root.do(func() {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	})
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	request := binary.NativeEndian.AppendUint32(nil, uint32(20+len(attrs)))
	request = binary.NativeEndian.AppendUint16(request, kind)
	request = binary.NativeEndian.AppendUint16(request, unix.NLM_F_REQUEST|flags)
	request = append(request, make([]byte, 8)...)       // sequence number, port
	request = append(request, family, 0 /* v0 */, 0, 0) // struct nfgenmsg
	request = append(request, attrs...)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	buffer := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(fd, buffer, 0)
		if err != nil {
			return nil, err
		}
		for rest := buffer[:n]; len(rest) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(rest))
			if size < unix.SizeofNlMsghdr || size > len(rest) {
				return nil, fmt.Errorf("reading an answer: %d bytes of %d", size, len(rest))
			}
			body := rest[unix.SizeofNlMsghdr:size]
			switch binary.NativeEndian.Uint16(rest[4:]) {
			case unix.NLMSG_DONE:
				return payloads, nil
			case unix.NLMSG_ERROR:
				if errno := int32(binary.NativeEndian.Uint32(body)); errno != 0 {
					return nil, unix.Errno(-errno)
				}
				return payloads, nil
			}
			payloads = append(payloads, append([]byte(nil), body...))
			rest = rest[min((size+3)&^3, len(rest)):]
		}
	}
}

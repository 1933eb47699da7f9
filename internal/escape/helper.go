package escape

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Packet is what a helper outside the pod sends.
type Packet string

// The packets. Each is about the segment in the call of Send.
const (
	SYN         Packet = "syn"         // the segment itself
	Fragments   Packet = "fragments"   // the segment in two fragments; the second has the flags in IPv4, and data in IPv6
	Unreachable Packet = "unreachable" // an ICMP error: its port is unreachable
)

// Send sends for Place.Send: a SYN that this kernel has no state of, or a packet about one. It needs CAP_NET_RAW and
// the source address on this host. The source of an ICMP error is the segment's destination.
func Send(what Packet, from, to netip.AddrPort) error {
	const flagSYN = 0x02
	segment := Segment(from, to, flagSYN)
	switch what {
	case SYN:
		return sendRaw(unix.IPPROTO_TCP, from.Addr(), to.Addr(), segment)
	case Fragments:
		if to.Addr().Is6() { // RFC 8200, section 4.5: the first fragment must have all headers
			segment = Segment(from, to, flagSYN, make([]byte, 12)...)
			return sendFragments(from.Addr(), to.Addr(), segment[:24], segment[24:])
		}
		return sendFragments(from.Addr(), to.Addr(), segment[:8], segment[8:])
	case Unreachable:
		about := append(header(from.Addr(), to.Addr(), len(segment)), segment[:8]...)
		if from.Addr().Is6() { // RFC 4443, section 3.1; the kernel adds the checksum
			return sendRaw(unix.IPPROTO_ICMPV6, to.Addr(), from.Addr(), append([]byte{1, 4, 0, 0, 0, 0, 0, 0}, about...))
		}
		message := append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, about...) // RFC 792
		binary.BigEndian.PutUint16(message[2:], checksum(message))
		return sendRaw(unix.IPPROTO_ICMP, to.Addr(), from.Addr(), message)
	}
	return fmt.Errorf("no such packet: %q", what)
}

// sendRaw sends payloads on a raw socket.
func sendRaw(proto int, from, to netip.Addr, payloads ...[]byte) error {
	domain := unix.AF_INET
	if to.Is6() {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if proto == unix.IPPROTO_RAW { // the payload starts with the IP header, and this host must not reassemble fragments
		err = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_NODEFRAG, 1)
	}
	err = errors.Join(err, unix.Bind(fd, sockaddr(netip.AddrPortFrom(from, 0))))
	for _, payload := range payloads {
		if err == nil {
			err = unix.Sendto(fd, payload, 0, sockaddr(netip.AddrPortFrom(to, 0)))
		}
	}
	return err
}

var lastID atomic.Uint32

// sendFragments sends two fragments. The length of the first one is a multiple of eight bytes.
func sendFragments(from, to netip.Addr, first, second []byte) error {
	id := 1 + uint16(lastID.Add(1)%0xffff)
	const moreIPv4, moreIPv6 = 1 << 13, 1
	offset := uint16(len(first) / 8)
	if to.Is6() { // RFC 8200, section 4.5
		fragment := func(where uint16, data []byte) []byte {
			raw := binary.BigEndian.AppendUint16([]byte{unix.IPPROTO_TCP, 0}, where)
			return append(binary.BigEndian.AppendUint32(raw, uint32(id)), data...)
		}
		return sendRaw(unix.IPPROTO_FRAGMENT, from, to, fragment(moreIPv6, first), fragment(offset<<3, second))
	}
	fragment := func(where uint16, data []byte) []byte {
		raw := header(from, to, len(data))
		binary.BigEndian.PutUint16(raw[4:], id)
		binary.BigEndian.PutUint16(raw[6:], where)
		return append(raw, data...)
	}
	return sendRaw(unix.IPPROTO_RAW, from, to, fragment(moreIPv4, first), fragment(offset, second))
}

// Packed returns a TCP segment with an IP header.
func Packed(from, to netip.Addr, segment []byte) []byte {
	return append(header(from, to, len(segment)), segment...)
}

// header returns the IP header for size bytes of TCP.
func header(from, to netip.Addr, size int) []byte {
	const hops = 64
	var raw []byte
	if to.Is6() {
		raw = binary.BigEndian.AppendUint16([]byte{6 << 4, 0, 0, 0}, uint16(size))
		raw = append(raw, unix.IPPROTO_TCP, hops)
		return append(append(raw, from.AsSlice()...), to.AsSlice()...)
	}
	raw = binary.BigEndian.AppendUint16([]byte{4<<4 | 5, 0}, uint16(20+size))
	raw = append(raw, 0, 0, 0, 0, hops, unix.IPPROTO_TCP, 0, 0)
	raw = append(append(raw, from.AsSlice()...), to.AsSlice()...)
	binary.BigEndian.PutUint16(raw[10:], checksum(raw))
	return raw
}

// Call connects for Place.Call. It returns a non-blocking socket whose connection is in progress.
func Call(from, to netip.AddrPort) (fd int, err error) {
	if fd, err = bound(unix.SOCK_STREAM, 0, from, ""); err != nil {
		return -1, err
	}
	if err := begun(unix.Connect(fd, sockaddr(to))); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Segment returns a TCP segment with an even number of data bytes. flags is byte 13 of the header (RFC 9293, section
// 3.1).
func Segment(from, to netip.AddrPort, flags byte, data ...byte) []byte {
	tcp := append(make([]byte, 20), data...)
	binary.BigEndian.PutUint16(tcp, from.Port())
	binary.BigEndian.PutUint16(tcp[2:], to.Port())
	binary.BigEndian.PutUint32(tcp[4:], 1)
	binary.BigEndian.PutUint32(tcp[8:], 1)
	tcp[12], tcp[13] = 5<<4, flags
	binary.BigEndian.PutUint16(tcp[14:], 1024)
	binary.BigEndian.PutUint16(tcp[16:], checksum(append(pseudo(from.Addr(), to.Addr(), len(tcp)), tcp...)))
	return tcp
}

// pseudo returns the pseudo header for TCP's checksum (RFC 9293, section 3.1).
func pseudo(from, to netip.Addr, size int) []byte {
	data := append(from.AsSlice(), to.AsSlice()...)
	return binary.BigEndian.AppendUint16(append(data, 0, unix.IPPROTO_TCP), uint16(size))
}

// checksum returns the Internet checksum (RFC 1071) of an even number of bytes.
func checksum(data []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(data); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(data[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

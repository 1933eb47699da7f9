package escape

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// SYN does what Place.SYN asks of somebody outside: it sends a segment that the kernel knows nothing of. It takes
// CAP_NET_RAW where it is called, and from has to be an address there.
func SYN(from, to netip.AddrPort) error {
	domain := unix.AF_INET
	if to.Addr().Is6() {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(from.Addr(), 0))); err != nil {
		return err
	}
	const flagSYN = 0x02
	return unix.Sendto(fd, Segment(from, to, flagSYN), 0, sockaddr(netip.AddrPortFrom(to.Addr(), 0)))
}

// Call does what Place.Call asks of somebody outside: it begins a connection, and returns a socket that does not block.
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

// Segment is a TCP header without data. The flags are those of its 14th byte.
func Segment(from, to netip.AddrPort, flags byte) []byte {
	tcp := make([]byte, 20)
	binary.BigEndian.PutUint16(tcp, from.Port())
	binary.BigEndian.PutUint16(tcp[2:], to.Port())
	binary.BigEndian.PutUint32(tcp[4:], 1)
	binary.BigEndian.PutUint32(tcp[8:], 1)
	tcp[12], tcp[13] = 5<<4, flags
	binary.BigEndian.PutUint16(tcp[14:], 1024)
	binary.BigEndian.PutUint16(tcp[16:], checksum(from.Addr(), to.Addr(), tcp))
	return tcp
}

// checksum is TCP's, over the pseudo header and the segment (RFC 9293 3.1).
func checksum(from, to netip.Addr, tcp []byte) uint16 {
	data := append(from.AsSlice(), to.AsSlice()...)
	data = append(data, 0, unix.IPPROTO_TCP)
	data = binary.BigEndian.AppendUint16(data, uint16(len(tcp)))
	data = append(data, tcp...)
	sum := uint32(0)
	for i := 0; i < len(data); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(data[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

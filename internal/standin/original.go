package standin

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// OriginalDestination returns SO_ORIGINAL_DST of a connection (include/uapi/linux/netfilter_ipv4.h,
// include/uapi/linux/netfilter_ipv6/ip6_tables.h), or the text of an error.
func OriginalDestination(c *net.TCPConn) string {
	raw, err := c.SyscallConn()
	if err != nil {
		return err.Error()
	}
	var text string
	err = raw.Control(func(fd uintptr) {
		if c.LocalAddr().(*net.TCPAddr).IP.To4() != nil {
			text = original4(int(fd))
		} else {
			text = original6(int(fd))
		}
	})
	if err != nil {
		return err.Error()
	}
	return text
}

const soOriginalDst = 80

// original4 reads a struct sockaddr_in. It has 16 bytes, as many as this getter passes; the first two are the family.
func original4(fd int) string {
	address, err := unix.GetsockoptIPv6Mreq(fd, unix.SOL_IP, soOriginalDst)
	if err != nil {
		return err.Error()
	}
	b := address.Multiaddr
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:4])).String()
}

// original6 reads a struct sockaddr_in6, which is the start of what this getter passes.
func original6(fd int) string {
	info, err := unix.GetsockoptIPv6MTUInfo(fd, unix.SOL_IPV6, soOriginalDst)
	if err != nil {
		return err.Error()
	}
	port := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, info.Addr.Port))
	return netip.AddrPortFrom(netip.AddrFrom16(info.Addr.Addr), port).String()
}

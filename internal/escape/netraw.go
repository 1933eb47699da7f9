package escape

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// WithNetRaw are more attempts, of a process with CAP_NET_RAW. They need no helper outside.
var WithNetRaw = []Attempt{
	{Name: "transparent", NetRaw: true, Why: "as freebind, by a transparent socket: in IPv4, too",
		run: outbound(fromServerBy(transparent), plain)},
	{Name: "raw", NetRaw: true, Why: "as helper, but the app sends the lone SYN itself, by a raw socket",
		run: outbound(fromServerBy(raw), plain)},
}

// fromServerBy sends a SYN from the server's address to the pod's by the given function, while a silent listener is
// there.
func fromServerBy(send func(Place) error) func(Place) error {
	return func(p Place) error {
		silent, err := p.silent()
		if err != nil {
			return err
		}
		defer done(silent)
		return send(p)
	}
}

// transparent connects with a transparent socket.
func transparent(p Place) error {
	domain, level, option := unix.AF_INET, unix.SOL_IP, unix.IP_TRANSPARENT
	if p.Server.Addr().Is6() {
		domain, level, option = unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_TRANSPARENT
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer done(fd)
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		unix.SetsockoptInt(fd, level, option, 1))
	if err == nil {
		err = bind(fd, sockaddr(p.Server))
	}
	if err != nil {
		return err
	}
	return begun(unix.Connect(fd, sockaddr(p.Pod)))
}

// raw sends the segment with its IP header on a raw socket.
func raw(p Place) error {
	const flagSYN = 0x02
	domain := unix.AF_INET
	if p.Server.Addr().Is6() {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	packet := Packed(p.Server.Addr(), p.Pod.Addr(), Segment(p.Server, p.Pod, flagSYN))
	return begun(unix.Sendto(fd, packet, 0, sockaddr(netip.AddrPortFrom(p.Pod.Addr(), 0))))
}

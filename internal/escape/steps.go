package escape

import (
	"errors"

	"golang.org/x/sys/unix"
)

// outbound connects after leave has created an entry.
func outbound(leave func(Place) error, connect func(Place) (int, error)) func(Place) (int, error) {
	return func(p Place) (int, error) {
		if err := leave(p); err != nil {
			return -1, errors.Join(ErrNotMade, err)
		}
		p.left()
		return connect(p)
	}
}

// fromInside creates an entry in the way that the family allows.
func fromInside(p Place) error {
	if p.Pod.Addr().Is6() {
		return fromServer(p)
	}
	return byDevice(p)
}

// byDevice sends a SYN by the device, or by lo if there is none.
func byDevice(p Place) error {
	fd, err := bound(unix.SOCK_STREAM, 0, p.Pod, p.device())
	if err != nil {
		return err
	}
	defer done(fd)
	return begun(unix.Connect(fd, sockaddr(p.Server)))
}

func (p Place) device() string {
	if p.Device == "" {
		return "lo"
	}
	return p.Device
}

// fromServer sends a SYN from the server's address to the pod's, where a silent listener is.
func fromServer(p Place) error {
	silent, err := p.silent()
	if err != nil {
		return err
	}
	defer done(silent)
	fd, err := bound(unix.SOCK_STREAM, 0, p.Server, "")
	if err != nil {
		return err
	}
	defer done(fd)
	return begun(unix.Connect(fd, sockaddr(p.Pod)))
}

// sent makes the helper send a packet about a SYN. The port must not be captured.
func sent(what Packet) func(Place) error {
	return func(p Place) error {
		silent, err := p.silent()
		if err != nil {
			return err
		}
		defer done(silent)
		return p.Send(what, p.Server, p.Pod)
	}
}

// finished makes the helper send a SYN, and answers it. The server's kernel knows no such connection, and resets it.
func finished(p Place) error {
	listener, err := bound(unix.SOCK_STREAM, 0, p.Pod, "")
	if err != nil {
		return err
	}
	defer done(listener)
	return errors.Join(unix.Listen(listener, 1), p.Send(SYN, p.Server, p.Pod))
}

// sentAbout makes the helper send an ICMP error.
func sentAbout(p Place) error { return p.Send(Unreachable, p.Pod, p.Server) }

// calledFromServer creates an entry in the way that the family allows, and makes the server call while nobody answers.
func calledFromServer(p Place) error {
	if err := fromInside(p); err != nil {
		return err
	}
	silent, err := p.silent()
	if err != nil {
		return err
	}
	defer done(silent)
	if err := p.Call(p.Server, p.Pod); err != nil {
		return err
	}
	_ = p.Until(func() (bool, error) { return false, nil }) // returns when the call has arrived
	return nil
}

// datagram sends a datagram to the server.
func datagram(p Place) error {
	fd, err := bound(unix.SOCK_DGRAM, 0, p.Pod, "")
	if err != nil {
		return err
	}
	defer done(fd)
	return unix.Sendto(fd, []byte("first\n"), 0, sockaddr(p.Server))
}

// silent listens on the pod's port and never answers: it requires a TTL that no packet has that was routed, or was sent
// with the default of 64 (ip(7), IP_MINTTL).
func (p Place) silent() (int, error) {
	fd, err := bound(unix.SOCK_STREAM, 0, p.Pod, "")
	if err != nil {
		return -1, err
	}
	const ipv6MinHopCount = 73 // IPV6_MINHOPCOUNT, linux/in6.h
	if p.Pod.Addr().Is6() {
		err = unix.SetsockoptInt(fd, unix.SOL_IPV6, ipv6MinHopCount, 255)
	} else {
		err = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_MINTTL, 255)
	}
	if err = errors.Join(err, unix.Listen(fd, 1)); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// plain opens the connection without a trick.
func plain(p Place) (int, error) {
	return p.opened(0, func(fd int) error { return unix.Connect(fd, sockaddr(p.Server)) })
}

// unlessTaken is plain, unless something in the pod may already have the server's call: TPROXY's listener has it with
// the same addresses and ports.
func unlessTaken(p Place) (int, error) {
	fd, err := plain(p)
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return -1, unix.EADDRNOTAVAIL // not ErrNotMade: the attempt was blocked
	}
	return fd, err
}

// multipath opens the connection by Multipath TCP (RFC 8684).
func multipath(p Place) (int, error) {
	fd, err := p.opened(unix.IPPROTO_MPTCP, func(fd int) error { return unix.Connect(fd, sockaddr(p.Server)) })
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ENOPROTOOPT) {
		return plain(p) // a kernel before 5.6, or one with net.mptcp.enabled=0
	}
	return fd, err
}

// fastOpen opens the connection with data in the SYN (RFC 7413), without a cookie from an earlier connection. The data
// is a space, which the servers ignore.
func fastOpen(p Place) (int, error) {
	return p.opened(0, func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_FASTOPEN_NO_COOKIE, 1); err != nil {
			return errors.Join(ErrNotMade, err)
		}
		err := unix.Sendto(fd, []byte(" "), unix.MSG_FASTOPEN, sockaddr(p.Server))
		if errors.Is(err, unix.EOPNOTSUPP) { // disabled by net.ipv4.tcp_fastopen
			return errors.Join(ErrNotMade, err)
		}
		return err
	})
}

// opened creates a socket and calls connect for it.
func (p Place) opened(proto int, connect func(fd int) error) (int, error) {
	fd, err := bound(unix.SOCK_STREAM, proto, p.Pod, "")
	if err != nil {
		return -1, errors.Join(ErrNotMade, err)
	}
	err = made(begun(connect(fd)))
	if err == nil {
		err = p.established(fd)
	}
	if err != nil {
		abort(fd)
		return -1, err
	}
	return fd, nil
}

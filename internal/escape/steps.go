package escape

import (
	"errors"

	"golang.org/x/sys/unix"
)

// outbound connects after something has left an entry.
func outbound(leave func(Place) error, connect func(Place) (int, error)) func(Place) (int, error) {
	return func(p Place) (int, error) {
		if err := leave(p); err != nil {
			return -1, errors.Join(ErrNotMade, err)
		}
		p.left()
		return connect(p)
	}
}

// fromInside leaves an entry in the way of the family.
func fromInside(p Place) error {
	if p.Pod.Addr().Is6() {
		return fromServer(p)
	}
	return byDevice(p)
}

// byDevice sends a SYN by the device, lo if there is none.
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

// fromServer sends a SYN from the server's address to the pod's, where a listener keeps silent.
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

// sent has a SYN sent by a helper; the port must be one that is not captured.
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

// finished has a SYN sent by a helper and answers it: whoever listens at the server's address knows nothing of that,
// and resets the connection.
func finished(p Place) error {
	listener, err := bound(unix.SOCK_STREAM, 0, p.Pod, "")
	if err != nil {
		return err
	}
	defer done(listener)
	return errors.Join(unix.Listen(listener, 1), p.Send(SYN, p.Server, p.Pod))
}

// sentAbout has an error sent by a helper.
func sentAbout(p Place) error { return p.Send(Unreachable, p.Pod, p.Server) }

// calledFromServer leaves an entry in the way of the family, and has the server call while nobody answers.
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
	_ = p.Until(func() (bool, error) { return false, nil }) // the call has come
	return nil
}

// datagram sends one to the server.
func datagram(p Place) error {
	fd, err := bound(unix.SOCK_DGRAM, 0, p.Pod, "")
	if err != nil {
		return err
	}
	defer done(fd)
	return unix.Sendto(fd, []byte("first\n"), 0, sockaddr(p.Server))
}

// silent listens on the pod's port and never answers: it wants a time to live that nothing has which was routed, or was
// sent with the default of 64.
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

// plain opens the connection itself.
func plain(p Place) (int, error) {
	return p.opened(0, func(fd int) error { return unix.Connect(fd, sockaddr(p.Server)) })
}

// unlessTaken is plain where somebody in the pod may have the call of the server already: TPROXY's listener has it with
// the same four numbers.
func unlessTaken(p Place) (int, error) {
	fd, err := plain(p)
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return -1, unix.EADDRNOTAVAIL // and not ErrNotMade
	}
	return fd, err
}

// multipath opens it by Multipath TCP (RFC 8684).
func multipath(p Place) (int, error) {
	fd, err := p.opened(unix.IPPROTO_MPTCP, func(fd int) error { return unix.Connect(fd, sockaddr(p.Server)) })
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ENOPROTOOPT) {
		return plain(p) // a kernel before 5.6, or one that does not want any (net.mptcp.enabled)
	}
	return fd, err
}

// fastOpen opens it with data in the SYN (RFC 7413), and without the cookie that another connection would have brought.
// The data is a space, which those who answer do not mind.
func fastOpen(p Place) (int, error) {
	return p.opened(0, func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_FASTOPEN_NO_COOKIE, 1); err != nil {
			return errors.Join(ErrNotMade, err)
		}
		err := unix.Sendto(fd, []byte(" "), unix.MSG_FASTOPEN, sockaddr(p.Server))
		if errors.Is(err, unix.EOPNOTSUPP) { // net.ipv4.tcp_fastopen
			return errors.Join(ErrNotMade, err)
		}
		return err
	})
}

// opened makes a socket and has it connect.
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

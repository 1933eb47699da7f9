package wait

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// patience limits one attempt. It is less than the second after which the kernel retransmits a SYN.
const patience = 900 * time.Millisecond

// attempt is one connection: where it is dialed from and to, and where the redirected connection has to arrive.
type attempt struct {
	family             family
	from, dial, listen netip.AddrPort
}

// run returns nil if the connection was redirected, and otherwise what happened to it.
func (a attempt) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	listener, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }()
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(a.from), Control: a.bound}
	conn, err := dialer.DialContext(ctx, a.family.network, a.dial.String())
	if err != nil {
		return a.failed(cause(err))
	}
	defer reset(conn)
	return a.accept(listener, netip.MustParseAddrPort(conn.LocalAddr().String()).Port())
}

// open listens on a loopback address only: the rules redirect the pod's own connections to it.
func (a attempt) open(ctx context.Context) (*net.TCPListener, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false) // Go's default is MPTCP, whose sockets lack SO_ORIGINAL_DST on some kernels
	listener, err := config.Listen(ctx, a.family.network, a.listen.String())
	switch {
	case errors.Is(err, syscall.EADDRINUSE), errors.Is(err, syscall.EACCES):
		return nil, &errHeld{a.listen, cause(err)}
	case err != nil:
		return nil, fmt.Errorf("listening on %s: %w", a.listen, cause(err))
	}
	return listener.(*net.TCPListener), nil
}

// bound keeps the packets of a connection that is not redirected inside the node: the hop limit is 1. A redirected
// connection uses lo, where the hop limit does not matter. ::6 is an address of lo only with the rules in place;
// before, its packets would follow the default route, so the socket is bound to lo. Before Linux 5.7 that needs
// CAP_NET_RAW, so its error is ignored.
func (a attempt) bound(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		if a.family.loopback.Is4() {
			failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, syscall.IP_TTL, 1)
			return
		}
		failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_UNICAST_HOPS, 1)
		if a.dial.Addr() == a.family.passthrough {
			_ = syscall.BindToDevice(int(fd), "lo")
		}
	})
	return errors.Join(err, failed)
}

// accept waits for the connection from the given port, and checks its original destination. It ignores connections from
// other ports.
func (a attempt) accept(listener *net.TCPListener, from uint16) error {
	for {
		conn, err := listener.AcceptTCP()
		if err != nil {
			return a.failed(errors.New("something else answered"))
		}
		if netip.MustParseAddrPort(conn.RemoteAddr().String()).Port() != from {
			reset(conn)
			continue
		}
		dst, err := originalDst(conn, a.family)
		reset(conn)
		switch {
		case err != nil:
			return a.failed(err)
		case dst != a.dial:
			return a.failed(fmt.Errorf("it arrived as one to %s", dst))
		}
		return nil
	}
}

func (a attempt) failed(why error) error {
	return fmt.Errorf("a connection to %s is not redirected to port %d: %w", a.dial, a.listen.Port(), why)
}

// cause returns the kernel's error without the context that package net adds.
func cause(err error) error {
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return errno
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("no answer")
	}
	return err
}

// reset closes without TIME_WAIT, so that the port is free when the sidecar starts.
func reset(conn net.Conn) {
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.Close()
}

// soOriginalDst is SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST, which have the same value
// (include/uapi/linux/netfilter_ipv4.h, include/uapi/linux/netfilter_ipv6/ip6_tables.h).
const soOriginalDst = 80

// originalDst asks connection tracking for the original destination of the connection. Package syscall has no getter
// for a socket address. The two that are used here pass buffers of 20 and 32 bytes, into which the kernel writes a
// sockaddr_in of 16 and a sockaddr_in6 of 28.
func originalDst(conn *net.TCPConn, f family) (dst netip.AddrPort, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return dst, err
	}
	var asked error
	err = raw.Control(func(fd uintptr) {
		if f.loopback.Is4() {
			var v4 *syscall.IPv6Mreq
			if v4, asked = syscall.GetsockoptIPv6Mreq(int(fd), syscall.IPPROTO_IP, soOriginalDst); asked == nil {
				dst = netip.AddrPortFrom(netip.AddrFrom4([4]byte(v4.Multiaddr[4:8])), binary.BigEndian.Uint16(v4.Multiaddr[2:4]))
			}
			return
		}
		var v6 *syscall.IPv6MTUInfo
		if v6, asked = syscall.GetsockoptIPv6MTUInfo(int(fd), syscall.IPPROTO_IPV6, soOriginalDst); asked == nil {
			port := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, v6.Addr.Port))
			dst = netip.AddrPortFrom(netip.AddrFrom16(v6.Addr.Addr), port)
		}
	})
	if err = errors.Join(err, asked); err != nil {
		return dst, fmt.Errorf("reading its original destination: %w", err)
	}
	return dst, nil
}

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

// patience bounds one attempt. It is below the second after which the kernel would send the first packet again.
const patience = 900 * time.Millisecond

// attempt is one connection: dialed from somewhere, and expected at a listener of our own.
type attempt struct {
	family             family
	from, dial, listen netip.AddrPort
}

// run returns nil if the connection was redirected, else what happened to it.
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

// open listens on loopback only, where the rules lead connections of the pod itself.
func (a attempt) open(ctx context.Context) (*net.TCPListener, error) {
	var config net.ListenConfig
	config.SetMultipathTCP(false) // Go's default, and not every kernel's knows SO_ORIGINAL_DST
	listener, err := config.Listen(ctx, a.family.network, a.listen.String())
	switch {
	case errors.Is(err, syscall.EADDRINUSE), errors.Is(err, syscall.EACCES):
		return nil, &errHeld{a.listen, cause(err)}
	case err != nil:
		return nil, fmt.Errorf("listening on %s: %w", a.listen, cause(err))
	}
	return listener.(*net.TCPListener), nil
}

// bound keeps the packet of a connection that nobody redirects from travelling: a redirected one goes through lo, where
// the hop limit does not matter; any other is dropped by the node. ::6 is an address of lo once the rules are there,
// before that it would be looked for behind the default route; kernels before 5.7 do not let everybody bind to a
// device.
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

// accept waits for the connection that was dialed from the given port, and looks at where it was meant to go. Others
// may come to the listener as well.
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

// cause is the kernel's word without what package net puts around it.
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

// reset closes without TIME_WAIT, so that nothing of the probe is left when the sidecar starts.
func reset(conn net.Conn) {
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.Close()
}

// soOriginalDst is SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST alike (linux/netfilter_ipv4.h, ip6_tables.h).
const soOriginalDst = 80

// originalDst asks connection tracking where the connection was meant to go. Package syscall has no getter for a socket
// address; the two used here pass the kernel 20 and 32 bytes, of which it writes the 16 and 28 of such an address.
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

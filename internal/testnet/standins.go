package testnet

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// The ports on which stand-ins listen, on all their addresses. 15090 of the app and 7000 of both are closed on purpose:
// what reaches them is refused, unless it was redirected.
var (
	appPorts  = []uint16{53, 8080, 8081, 9090, 15008, 15020, 15021}
	peerPorts = []uint16{53, 80, 443, 8080, 8081, 9090, 9443, 15008, 15020}
	udpPorts  = []uint16{53, 9000}
)

// startServers starts the app, the peer and the virtual machine.
func (l *Lab) startServers() error {
	if l.options.Bare {
		return nil
	}
	for _, standIn := range []struct {
		node    *node
		ids     ids
		landing Landing
		tcp     []uint16
	}{
		{l.pod, ids{appID, appID}, AtApp, appPorts},
		{l.peer, ids{}, AtPeer, peerPorts},
		{l.vm, ids{}, AtVM, peerPorts},
	} {
		s, err := startServer(standIn.node.ns, l.hostIDs(identity{standIn.node, standIn.ids}))
		if err != nil {
			return err
		}
		l.servers = append(l.servers, s)
		s.do(func() {
			for _, wild := range l.wildcards(standIn.node) {
				for _, port := range standIn.tcp {
					err = errors.Join(err, s.listen(standIn.landing, wild, port))
				}
				for _, port := range udpPorts {
					err = errors.Join(err, s.receive(standIn.landing, netip.AddrPortFrom(wild, port), nil))
				}
			}
		})
		if err != nil {
			return fmt.Errorf("starting the stand-in %q: %w", standIn.landing, err)
		}
	}
	return nil
}

// wildcards returns the unspecified addresses of the families in which the node's sockets may listen.
func (l *Lab) wildcards(n *node) []netip.Addr {
	if n == l.pod && l.options.NoIPv6 {
		return []netip.Addr{netip.IPv4Unspecified()}
	}
	return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
}

// listen serves TCP. It must be called on the server's thread, like everything that creates sockets here.
func (s *server) listen(landing Landing, at netip.Addr, port uint16) error {
	fd, err := s.bind(unix.SOCK_STREAM, netip.AddrPortFrom(at, port), landing == AtInbound && !s.plain)
	if err != nil {
		return fmt.Errorf("listening on port %d: %w", port, err)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return fmt.Errorf("listening on port %d: %w", port, err)
	}
	return s.add(&endpoint{fd: fd, landing: landing, kind: tcpListener, port: port})
}

// receive serves UDP. It answers from one of replies if the question asks for it.
func (s *server) receive(landing Landing, at netip.AddrPort, replies map[string]int) error {
	fd, err := s.bind(unix.SOCK_DGRAM, at, false)
	if err != nil {
		return fmt.Errorf("receiving on port %d: %w", at.Port(), err)
	}
	if at.Addr().Is4() {
		err = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_PKTINFO, 1)
	} else {
		err = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}
	if err != nil {
		return fmt.Errorf("asking for the destination of datagrams: %w", err)
	}
	return s.add(&endpoint{fd: fd, landing: landing, kind: udpSocket, port: at.Port(), replies: replies})
}

// bind creates a socket on the calling thread, and binds it.
func (s *server) bind(kind int, at netip.AddrPort, transparent bool) (int, error) {
	fd, err := unix.Socket(domain(at.Addr()), kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if at.Addr().Is6() {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, 1))
	}
	if transparent {
		// The calling thread may have no privileges; a new goroutine runs as root.
		done := make(chan error)
		go func() { done <- setTransparent(fd, at.Addr()) }()
		err = errors.Join(err, <-done)
	}
	if err = errors.Join(err, unix.Bind(fd, sockaddr(at))); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// setTransparent lets the socket use addresses that the host does not have (ip(7), IP_TRANSPARENT). The calling thread
// must be privileged.
func setTransparent(fd int, at netip.Addr) error {
	if at.Is6() {
		return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
	}
	return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1)
}

func domain(addr netip.Addr) int {
	if addr.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

package testnet

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/istio-pod-network/controller/internal/escape"
	"golang.org/x/sys/unix"
)

// NetRawFlows are attempts of an app with CAP_NET_RAW to get around the sidecar.
var NetRawFlows = []Flow{
	{Name: "escape-transparent", From: FromApp, Proto: TCP, To: Peer, Port: 80, Src: Pod,
		Kind: escapePrefix + "transparent"},
	{Name: "escape-transparent-443", From: FromApp, Proto: TCP, To: Service, Port: 443, Src: Pod,
		Kind: escapePrefix + "transparent"},
	{Name: "escape-raw", From: FromApp, Proto: TCP, To: Peer, Port: 8080, Src: Pod, Kind: escapePrefix + "raw"},
	{Name: "escape-raw-9443", From: FromApp, Proto: TCP, To: Service, Port: 9443, Src: Pod, Kind: escapePrefix + "raw"},
}

// appWith starts a thread of the app's user with exactly these capabilities.
func (l *Lab) appWith(capabilities ...uint) (*thread, error) {
	who := identity{l.pod, ids{appID, appID}}
	return startThread(who.node.ns, l.hostIDs(who), capabilities...)
}

// listenTransparently has the app listen on a transparent socket that it creates itself.
func (l *Lab) listenTransparently(at netip.AddrPort, capabilities []uint) error {
	t, err := l.appWith(capabilities...)
	if err != nil {
		return err
	}
	defer t.stop()
	fd, app := -1, l.servers[0]
	t.do(func() {
		if fd, err = app.bind(unix.SOCK_STREAM, at, false); err == nil {
			err = errors.Join(setTransparent(fd, at.Addr()), unix.Listen(fd, backlog))
		}
	})
	if err != nil {
		return fmt.Errorf("listening by a transparent socket: %w", err)
	}
	app.do(func() { err = app.add(&endpoint{fd: fd, landing: AtApp, kind: tcpListener, port: at.Port()}) })
	return err
}

// Crafted is the way in which an app sends a segment that it has made itself.
type Crafted string

// The ways. Each needs CAP_NET_RAW.
const (
	ByRawSocket Crafted = "raw socket"
	InFragments Crafted = "fragments" // by a raw socket, in fragments that are not reassembled
	InFrame     Crafted = "frame"     // by a packet socket
)

// Reaches has an app with these capabilities send the peer a SYN that the kernel has no state of, and returns whether
// the peer receives it.
func (l *Lab) Reaches(how Crafted, family Family, capabilities ...uint) (bool, error) {
	from := netip.AddrPortFrom(Pod.Addr(family), nextPort())
	to := netip.AddrPortFrom(Peer.Addr(family), peerPorts[1])
	seen, err := l.peer.root.socket(domain(to.Addr()), unix.SOCK_RAW, unix.IPPROTO_TCP)
	if err != nil {
		return false, err
	}
	defer unix.Close(seen)
	t, err := l.appWith(capabilities...)
	if err != nil {
		return false, err
	}
	defer t.stop()
	switch how {
	case InFrame:
		err = l.sendFrame(t, from, to)
	case InFragments:
		t.do(func() { err = escape.Send(escape.Fragments, from, to) })
	default:
		t.do(func() { err = escape.Send(escape.SYN, from, to) })
	}
	if err != nil {
		return false, fmt.Errorf("sending by %s: %w", how, err)
	}
	l.rounds.during(append(l.servers, l.sidecar.server), func() {
		_, err = l.sniff(seen, Silent, func(s sniffed) bool {
			return s.srcPort == from.Port() && s.dstPort == to.Port() && s.flags == flagSYN
		})
	})
	if errors.Is(err, errSilence) {
		return false, nil
	}
	return err == nil, err
}

// sendFrame sends a SYN in an Ethernet frame to the other end of eth0.
func (l *Lab) sendFrame(t *thread, from, to netip.AddrPort) error {
	own, err := l.pod.handle.LinkByName("eth0")
	if err != nil {
		return err
	}
	other, err := l.peer.handle.LinkByName("eth0")
	if err != nil {
		return err
	}
	at := unix.SockaddrLinklayer{Ifindex: own.Attrs().Index, Halen: 6, Protocol: networkOrder(unix.ETH_P_IP)}
	if to.Addr().Is6() {
		at.Protocol = networkOrder(unix.ETH_P_IPV6)
	}
	copy(at.Addr[:], other.Attrs().HardwareAddr)
	t.do(func() {
		var fd int
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		defer unix.Close(fd)
		err = unix.Sendto(fd, escape.Packed(from.Addr(), to.Addr(), escape.Segment(from, to, flagSYN)), 0, &at)
	})
	return err
}

// networkOrder returns a number in network byte order, as packet sockets need it (packet(7)).
func networkOrder(v uint16) uint16 { return v<<8 | v>>8 }

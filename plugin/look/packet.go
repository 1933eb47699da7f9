package look

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"golang.org/x/sys/unix"
)

// packet is a socket that sends one: a SYN, or an empty datagram.
type packet struct {
	fd    int
	proto uint8
	port  uint16
}

func (p *packet) close() { _ = unix.Close(p.fd) }

// open makes the socket, in the network namespace of the calling thread. Its port tells the packet from all others:
// nobody else has it, until it is closed. One that the kernel chooses would be free again with send: tcp_disconnect in
// net/ipv4/tcp.c.
func (q *question) open() (*packet, error) {
	domain, kind := unix.AF_INET, unix.SOCK_STREAM
	if q.to.Addr().Is6() {
		domain = unix.AF_INET6
	}
	if q.proto == unix.IPPROTO_UDP {
		kind = unix.SOCK_DGRAM
	}
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a socket: %w", err)
	}
	p := &packet{fd: fd, proto: q.proto}
	unspecified := netip.IPv4Unspecified()
	if domain == unix.AF_INET6 {
		unspecified = netip.IPv6Unspecified()
	}
	for range 100 {
		p.port = choosePort()
		if err = unix.Bind(fd, address(netip.AddrPortFrom(unspecified, p.port))); !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	if err != nil {
		p.close()
		return nil, fmt.Errorf("binding a socket: %w", err)
	}
	return p, nil
}

// The ports that a kernel chooses from, unless it is told others: net.ipv4.ip_local_port_range.
const firstPort, lastPort = 32768, 60999

// choosePort chooses one; tests change it.
var choosePort = func() uint16 { return uint16(firstPort + rand.N(lastPort-firstPort+1)) }

// openAs makes the socket as the user and group that the question names: that is the owner by which rules know it. Only
// the calling thread is somebody else meanwhile, and only as the owner of what it opens.
func (q *question) openAs() (p *packet, err error) {
	become := func(uid, gid int) {
		_, _ = unix.SetfsgidRetGid(gid)
		_, _ = unix.SetfsuidRetUid(uid)
	}
	become(int(q.uid), int(q.gid))
	defer become(0, 0)
	// With an ID that there is not, nothing changes, and who one is comes back.
	uid, _ := unix.SetfsuidRetUid(-1)
	gid, _ := unix.SetfsgidRetGid(-1)
	if uint32(uid) != q.uid || uint32(gid) != q.gid {
		return nil, &notTold{why: fmt.Sprintf("the agent's container may not send as user %d and group %d: it lacks "+
			"CAP_SETUID or CAP_SETGID", q.uid, q.gid), value: "agent.securityContext.capabilities.add: [SETGID, SETUID]"}
	}
	return q.open()
}

// send sends the packet, once: nothing of it may come when nobody drops it any more. What becomes of it does not matter
// here: the rules may drop it, and that is what is asked.
func (p *packet) send(to netip.AddrPort) error {
	err := unix.Connect(p.fd, address(to))
	if p.proto == unix.IPPROTO_TCP {
		// What is not connected yet sends nothing then: inet_shutdown in net/ipv4/af_inet.c.
		_ = unix.Shutdown(p.fd, unix.SHUT_RDWR)
	} else if err == nil {
		_, err = unix.SendmsgN(p.fd, nil, nil, nil, unix.MSG_NOSIGNAL)
	}
	for _, harmless := range []error{unix.EINPROGRESS, unix.EPERM, unix.ECONNREFUSED} {
		if errors.Is(err, harmless) {
			return nil
		}
	}
	if err != nil {
		return &notTold{why: fmt.Sprintf("the kernel sends no packet to %s: %v", to.Addr(), err)}
	}
	return nil
}

func address(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

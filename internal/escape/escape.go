// Package escape has the attempts of a process without privileges to get TCP, or DNS, past its sidecar. Most of them
// first create a conntrack entry that is not redirected, and then use the same addresses and ports for traffic that
// should be. Some create none, as their descriptions say: they are here for completeness.
//
// An attempt needs sockets only: no capability and no particular user. So the same code runs in a test's network
// namespace and in a pod with Pod Security `restricted`. Attempts that need CAP_NET_RAW are in WithNetRaw. An attempt
// only opens the connection. Whether it got around the sidecar depends on who answers, and the caller has to find that
// out.
package escape

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Attempt is one attempt to get around the sidecar.
type Attempt struct {
	Name string
	Why  string // what it exploits
	// Harmless, if not empty, says why the attempt never succeeds, with any rules.
	Harmless string
	UDP      bool // it queries a DNS server; all others open a TCP connection
	// Inbound says that the server opens the connection, to a captured port of the pod.
	Inbound bool
	// NoIPv4 and NoIPv6 say that the attempt does not exist in a family. IPv4 accepts no foreign source address. IPv6
	// has no route by lo, and none to every destination by every interface.
	NoIPv4, NoIPv6 bool
	// Helped says that the attempt needs Place.Send, and a port of the pod that is not captured.
	Helped bool
	// Called says that the attempt needs Place.Call, and an unused port of the server.
	Called bool
	// NeedsDevice says that the attempt needs Place.Device. NeedsAddress says that Place.Pod must be the address of
	// another interface than that to the server. Loopback says that the attempt uses an address of lo, but not its
	// first one: 127.0.0.6, or the ::6 that the rules for IPv6 add.
	NeedsDevice, NeedsAddress, Loopback bool
	// NetRaw says that the attempt needs CAP_NET_RAW.
	NetRaw bool

	run func(Place) (int, error)
}

// NeedsSecond reports whether the pod must have a second interface.
func (a Attempt) NeedsSecond() bool { return a.NeedsDevice || a.NeedsAddress }

// BothSides reports whether both the app and the server open the connection.
func (a Attempt) BothSides() bool { return a.Called && !a.Inbound }

// TakesServerPort reports whether the attempt binds a socket in the pod to the server's address and port.
func (a Attempt) TakesServerPort() bool {
	return !a.Helped && !a.NeedsDevice && a.Harmless == "" && a.Name != "lo"
}

// Place is where an attempt is made.
type Place struct {
	Pod    netip.AddrPort // the pod's own address, in the server's family, and an unused port
	Server netip.AddrPort // outside the pod
	Device string         // if needed: an interface that is not redirected, and that does not lead to the server
	// Until calls try repeatedly until it is done or returns an error. It returns an error when nothing more can
	// arrive.
	Until func(try func() (done bool, err error)) error
	// Send makes a helper outside the pod do what the function Send does. It returns when the pod must have the packet.
	Send func(what Packet, from, to netip.AddrPort) error
	// Call makes a helper outside the pod connect from the server's address, keep the connection, and answer on it.
	Call func(from, to netip.AddrPort) error
	// Left, if not nil, is called between the creation of the entry and its use.
	Left func()
}

func (p Place) left() {
	if p.Left != nil {
		p.Left()
	}
}

// Attempts are all known attempts without privileges.
var Attempts = []Attempt{
	{Name: "lo", NoIPv6: true, Why: "a first SYN that is bound to lo counts as a call inside the pod",
		run: outbound(byDevice, plain)},
	{Name: "freebind", NoIPv4: true, Why: "a first SYN from the server's address to the pod: the connection is its answer",
		run: outbound(fromServer, plain)},
	{Name: "helper", Helped: true, Why: "a lone SYN from outside to a port that is not captured: likewise",
		run: outbound(sent(SYN), plain)},
	{Name: "fragments", Helped: true, Why: "as helper, with a SYN in fragments",
		run: outbound(sent(Fragments), plain)},
	{Name: "finished", Helped: true,
		Why: "as helper, but the connection has been answered, and reset: its numbers are reused",
		run: outbound(finished, plain)},
	{Name: "mptcp", Why: "as the first two, and the socket of the connection is the kernel's",
		run: outbound(fromInside, multipath)},
	{Name: "fastopen", Why: "as the first two, with TCP Fast Open: the SYN of the connection has data",
		run: outbound(fromInside, fastOpen)},
	{Name: "simultaneous", Called: true, Why: "as the first two, and then both sides open the connection at once",
		run: outbound(calledFromServer, unlessTaken)},
	{Name: "inbound", Inbound: true, Called: true,
		Why: "as the first two, and then the server calls: its SYN is an answer", run: inbound},
	{Name: "address", NeedsAddress: true, Why: "as the first two, from the address of another interface",
		run: outbound(fromInside, plain)},
	{Name: "loopback", Loopback: true, Why: "as the first two, from an address of lo",
		run: outbound(fromInside, plain)},
	{Name: "udp", Why: "a datagram with the same four numbers before",
		Harmless: "connection tracking tells the protocols apart", run: outbound(datagram, plain)},
	{Name: "icmp", Helped: true, Why: "an ICMP error from outside, about a segment with the same four numbers",
		Harmless: "an error about a connection that is not tracked leaves no entry", run: outbound(sentAbout, plain)},
	{Name: "device", NoIPv6: true, NeedsDevice: true, Why: "a first SYN leaves by an interface that is excluded",
		run: outbound(byDevice, plain)},
	{Name: "dns", NoIPv6: true, NeedsDevice: true, UDP: true, Why: "likewise, a DNS query", run: query},
}

// In reports whether the attempt exists in the family.
func (a Attempt) In(ipv6 bool) bool { return ipv6 && !a.NoIPv6 || !ipv6 && !a.NoIPv4 }

// Named returns the attempt of Attempts with that name.
func Named(name string) (Attempt, bool) {
	for _, a := range Attempts {
		if a.Name == name {
			return a, true
		}
	}
	return Attempt{}, false
}

// Run makes the attempt on the calling thread. It returns the connection, or a connected UDP socket. An error other
// than ErrNotMade means that the attempt was blocked.
func (a Attempt) Run(p Place) (fd int, err error) {
	if fd, err = a.run(p); err != nil {
		return -1, fmt.Errorf("attempt %s: %w", a.Name, err)
	}
	return fd, nil
}

// ErrNotMade is the error if not all steps of an attempt could be made. It then proves nothing.
var ErrNotMade = errors.New("a step of the attempt could not be made")

// made joins ErrNotMade to an error about an address or port that was not available. All other errors mean that the
// connection was blocked.
func made(err error) error {
	if errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EADDRNOTAVAIL) {
		return errors.Join(ErrNotMade, err)
	}
	return err
}

// inbound creates an entry, listens, and makes the server call.
func inbound(p Place) (fd int, err error) {
	if err := fromInside(p); err != nil {
		return -1, errors.Join(ErrNotMade, err)
	}
	p.left()
	listener, err := bound(unix.SOCK_STREAM, 0, p.Pod, "")
	if err != nil {
		return -1, errors.Join(ErrNotMade, err)
	}
	defer done(listener)
	if err = errors.Join(unix.Listen(listener, 1), p.Call(p.Server, p.Pod)); err != nil {
		return -1, errors.Join(ErrNotMade, err)
	}
	err = p.Until(func() (bool, error) {
		if fd, _, err = unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC); errors.Is(err, unix.EAGAIN) {
			return false, nil
		}
		return true, err
	})
	return fd, err
}

// query sends a datagram by the device, and returns a socket with the same addresses and ports.
func query(p Place) (int, error) {
	first, err := bound(unix.SOCK_DGRAM, 0, p.Pod, p.device())
	if err != nil {
		return -1, err
	}
	if err = unix.Connect(first, sockaddr(p.Server)); err == nil {
		_, err = unix.Write(first, []byte("first\n"))
	}
	if err = errors.Join(err, unix.Close(first)); err != nil {
		return -1, errors.Join(ErrNotMade, err)
	}
	p.left()
	fd, err := bound(unix.SOCK_DGRAM, 0, p.Pod, "")
	if err != nil {
		return -1, errors.Join(ErrNotMade, err)
	}
	if err := unix.Connect(fd, sockaddr(p.Server)); err != nil {
		unix.Close(fd)
		return -1, errors.Join(ErrNotMade, err)
	}
	return fd, nil
}

// established waits until the connection is established.
func (p Place) established(fd int) error {
	return p.Until(func() (bool, error) {
		if errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || errno != 0 {
			return true, errors.Join(err, unix.Errno(errno))
		}
		_, err := unix.Getpeername(fd)
		return err == nil, nil
	})
}

// bound creates a non-blocking socket that is bound to the device, and then to the address.
func bound(kind, proto int, at netip.AddrPort, device string) (fd int, err error) {
	domain := unix.AF_INET
	if at.Addr().Is6() {
		domain = unix.AF_INET6
	}
	if fd, err = unix.Socket(domain, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto); err != nil {
		return -1, err
	}
	if device != "" {
		err = unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, device)
	}
	err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	if domain == unix.AF_INET6 {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1))
	} else {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_FREEBIND, 1))
	}
	if err = errors.Join(err, bind(fd, sockaddr(at))); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("binding to %s on %q: %w", at, device, err)
	}
	return fd, nil
}

// abort closes a socket with a reset, so that the kernel keeps no state of its connection.
func abort(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	unix.Close(fd)
}

// done shuts a socket down. A child process has a copy of it between its fork and its exec, so closing it is not
// enough.
func done(fd int) {
	_ = unix.Shutdown(fd, unix.SHUT_RDWR)
	unix.Close(fd)
}

// bind tries for more than ten seconds, because such a child may still have a socket that was closed.
func bind(fd int, at unix.Sockaddr) (err error) {
	for range 2000 {
		if err = unix.Bind(fd, at); !errors.Is(err, unix.EADDRINUSE) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
	return err
}

// begun ignores the errors of a connection attempt in progress, and of a packet that was dropped at once.
func begun(err error) error {
	if errors.Is(err, unix.EINPROGRESS) || errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}

func sockaddr(ap netip.AddrPort) unix.Sockaddr {
	if ap.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()}
}

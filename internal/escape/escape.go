// Package escape holds the ways by which a process without any privilege has tried to send TCP, or DNS, around its
// sidecar. What they have in common: they leave connection tracking an entry that nobody has redirected, and then use
// the same four numbers where they should be redirected. Some leave none, and say so: they are here because they were
// thought of.
//
// An attempt needs no capability, no user and nothing but sockets, so that the same code runs in a test's network
// namespace and in a pod of Pod Security `restricted`; WithNetRaw has those that need one. It only opens the
// connection: who answers it decides whether it has gone around the sidecar, and the caller asks for that.
package escape

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Attempt is one way.
type Attempt struct {
	Name string
	Why  string // what it makes use of
	// Harmless, where it is not empty, says why it gets through nowhere, whatever the rules are.
	Harmless string
	UDP      bool // it asks a DNS server; others open a TCP connection
	// Inbound says that the connection comes from the server's side to the pod, at a port that is captured.
	Inbound bool
	// NoIPv4 and NoIPv6 say for which family it is none: IPv4 takes no foreign source address, and IPv6 knows no route by
	// lo, nor one to everybody by every interface.
	NoIPv4, NoIPv6 bool
	// Helped says that it needs Place.Send, and a port of the pod that is not captured.
	Helped bool
	// Called says that it needs Place.Call, and a port of the server that nobody has.
	Called bool
	// NeedsDevice says that it needs Place.Device, NeedsAddress that Place.Pod has the address of another interface than
	// the one by which the server is reached. Loopback says that it has one of lo's own, which is not the first:
	// 127.0.0.6, or the ::6 that rules for IPv6 bring along.
	NeedsDevice, NeedsAddress, Loopback bool
	// NetRaw says that whoever makes it needs CAP_NET_RAW.
	NetRaw bool

	run func(Place) (int, error)
}

// NeedsSecond says that the pod must have a second interface.
func (a Attempt) NeedsSecond() bool { return a.NeedsDevice || a.NeedsAddress }

// BothSides says that the app and the server both open the connection.
func (a Attempt) BothSides() bool { return a.Called && !a.Inbound }

// TakesServerPort says that the attempt binds a socket in the pod to the server's address and port.
func (a Attempt) TakesServerPort() bool {
	return !a.Helped && !a.NeedsDevice && a.Harmless == "" && a.Name != "lo"
}

// Place is where an attempt is made.
type Place struct {
	Pod    netip.AddrPort // the pod's own address, of the server's family, and a port of it that nobody has
	Server netip.AddrPort // outside the pod
	Device string         // where needed: an interface that is not redirected, by which the server is not reached
	// Until calls try again and again until it is done or fails, and fails itself when nothing more can come.
	Until func(try func() (done bool, err error)) error
	// Send has somebody outside do what the function Send does, and returns when the pod must have it.
	Send func(what Packet, from, to netip.AddrPort) error
	// Call has somebody outside connect from the server's address, keep the connection, and answer what is asked by it.
	Call func(from, to netip.AddrPort) error
	// Left, where it is not nil, is called when the entry is left, before it is made use of.
	Left func()
}

func (p Place) left() {
	if p.Left != nil {
		p.Left()
	}
}

// Attempts are all ways that are known.
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

// In says whether the attempt is one in the family.
func (a Attempt) In(ipv6 bool) bool { return ipv6 && !a.NoIPv6 || !ipv6 && !a.NoIPv4 }

// Named returns one of Attempts.
func Named(name string) (Attempt, bool) {
	for _, a := range Attempts {
		if a.Name == name {
			return a, true
		}
	}
	return Attempt{}, false
}

// Run makes the attempt on the calling thread, and returns the connection, or a socket that is connected by UDP. An
// error that is not ErrNotMade means that nobody let it through.
func (a Attempt) Run(p Place) (fd int, err error) {
	if fd, err = a.run(p); err != nil {
		return -1, fmt.Errorf("attempt %s: %w", a.Name, err)
	}
	return fd, nil
}

// ErrNotMade is the error of an attempt whose steps could not all be made: it proves nothing.
var ErrNotMade = errors.New("a step of the attempt could not be made")

// made passes on what the network says to a connection, and tells apart what never reached it.
func made(err error) error {
	if errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EADDRNOTAVAIL) {
		return errors.Join(ErrNotMade, err)
	}
	return err
}

// inbound leaves an entry, listens, and has the server call.
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

// query sends a datagram by the device, and then returns a socket with the same numbers.
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

// established waits until the connection is there.
func (p Place) established(fd int) error {
	return p.Until(func() (bool, error) {
		if errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || errno != 0 {
			return true, errors.Join(err, unix.Errno(errno))
		}
		_, err := unix.Getpeername(fd)
		return err == nil, nil
	})
}

// bound makes a socket with the address, bound to the device first. It never blocks.
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

// abort closes a socket so that the kernel keeps nothing of its connection.
func abort(fd int) {
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	unix.Close(fd)
}

// done ends a socket at once, whoever else has it: a child of another thread has it from its fork until its exec.
func done(fd int) {
	_ = unix.Shutdown(fd, unix.SHUT_RDWR)
	unix.Close(fd)
}

// bind tries for ten seconds and more, for sockets that somebody else has closed and such a child still has.
func bind(fd int, at unix.Sockaddr) (err error) {
	for range 2000 {
		if err = unix.Bind(fd, at); !errors.Is(err, unix.EADDRINUSE) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
	return err
}

// begun forgives what a connection that is under way says, and a packet that was dropped at once.
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

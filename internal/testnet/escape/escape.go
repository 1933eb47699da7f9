// Package escape holds the ways by which a process without any privilege has tried to send TCP, or DNS, around its
// sidecar. What they have in common: they leave connection tracking an entry that nobody has redirected, and then use
// the same four numbers where they should be redirected.
//
// An attempt needs no capability, no user and nothing but sockets, so that the same code runs in a test's network
// namespace and in a pod of Pod Security `restricted`. It only opens the connection: who answers it decides whether it
// has gone around the sidecar, and the caller asks for that.
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
	UDP  bool   // it asks a DNS server; others open a TCP connection
	// Inbound says that the connection comes from the server's side to the pod, at a port that is captured.
	Inbound bool
	// NoIPv4 and NoIPv6 say for which family it is none: IPv4 takes no foreign source address, and IPv6 knows no route by
	// lo, nor one to everybody by every interface.
	NoIPv4, NoIPv6 bool
	// Helped says that it needs Place.SYN. Inbound ones need Place.Call.
	Helped bool
	// NeedsDevice says that it needs Place.Device.
	NeedsDevice bool
	run         func(Place) (int, error)
}

// Place is where an attempt is made.
type Place struct {
	Pod    netip.AddrPort // the pod's own address, of the server's family, and a port of it that nobody has
	Server netip.AddrPort // outside the pod
	Device string         // where needed: an interface that is not redirected, by which the server is not reached
	// Until calls try again and again until it is done or fails, and fails itself when nothing more can come.
	Until func(try func() (done bool, err error)) error
	// SYN has somebody outside send one lone segment from the server's address, and returns when the pod must have it.
	SYN func(from, to netip.AddrPort) error
	// Call has somebody outside connect from the server's address, and keeps the connection.
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
		run: outbound(byDevice, 0)},
	{Name: "freebind", NoIPv4: true, Why: "a first SYN from the server's address to the pod: the connection is its answer",
		run: outbound(fromServer, 0)},
	{Name: "helper", Helped: true, Why: "a lone SYN from outside to a port that is not captured: likewise",
		run: outbound(fromOutside, 0)},
	{Name: "mptcp", Why: "as the first two, and the socket of the connection is the kernel's",
		run: outbound(fromInside, unix.IPPROTO_MPTCP)},
	{Name: "inbound", Inbound: true, Why: "as the first two, and then the server calls: its SYN is an answer",
		run: inbound},
	{Name: "device", NoIPv6: true, NeedsDevice: true, Why: "a first SYN leaves by an interface that is excluded",
		run: outbound(byDevice, 0)},
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

// outbound connects after something has left an entry.
func outbound(leave func(Place) error, proto int) func(Place) (int, error) {
	return func(p Place) (int, error) {
		if err := leave(p); err != nil {
			return -1, errors.Join(ErrNotMade, err)
		}
		p.left()
		fd, err := p.connected(proto)
		if proto != 0 && (errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ENOPROTOOPT)) {
			return p.connected(0) // a kernel before 5.6, or one that does not want any (net.mptcp.enabled)
		}
		return fd, err
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

// fromOutside has the SYN sent by a helper; the port must be one that is not captured.
func fromOutside(p Place) error {
	silent, err := p.silent()
	if err != nil {
		return err
	}
	defer done(silent)
	return p.SYN(p.Server, p.Pod)
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

// connected opens the connection itself.
func (p Place) connected(proto int) (int, error) {
	fd, err := bound(unix.SOCK_STREAM, proto, p.Pod, "")
	if err != nil {
		return -1, errors.Join(ErrNotMade, err)
	}
	err = made(begun(unix.Connect(fd, sockaddr(p.Server))))
	if err == nil {
		err = p.established(fd)
	}
	if err != nil {
		abort(fd)
		return -1, err
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

package testnet

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// client is the non-blocking socket of a flow.
type client struct {
	fd     int
	rounds *rounds
	silent int // how many rounds it waits for an answer
}

// newClient creates the flow's socket as its party, bound to its source and to a port of its own.
func (l *Lab) newClient(f Flow, family Family, silent int) (*client, error) {
	c, err := l.unbound(f, family, silent)
	if err != nil {
		return nil, err
	}
	src := map[Family]netip.Addr{IPv4: netip.IPv4Unspecified(), IPv6: netip.IPv6Unspecified()}[family]
	if f.Src != Anywhere {
		src = f.Src.Addr(family)
	}
	if err := bind(c.fd, src, f.Proto); err != nil {
		c.close()
		return nil, fmt.Errorf("binding to %q: %w", f.Src, err)
	}
	return c, nil
}

// unbound creates the flow's socket as its party.
func (l *Lab) unbound(f Flow, family Family, silent int) (*client, error) {
	t, err := l.threadOf(f.From, l.settings)
	if err != nil {
		return nil, err
	}
	dst := f.To.Addr(family)
	kind, proto := unix.SOCK_STREAM, 0
	switch f.Proto {
	case UDP:
		kind = unix.SOCK_DGRAM
	case ICMP:
		kind, proto = unix.SOCK_DGRAM, unix.IPPROTO_ICMP
		if family == IPv6 {
			proto = unix.IPPROTO_ICMPV6
		}
	}
	fd, err := t.socket(domain(dst), kind, proto)
	if err != nil {
		return nil, err
	}
	c := &client{fd: fd, rounds: l.rounds, silent: silent}
	if f.Kind == OriginalSrc {
		err = setTransparent(fd, dst)
	}
	if f.isMarked() {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, proxyMark))
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// lastPort is the port that bind has used last.
var lastPort atomic.Uint32

// bind binds a socket to an address, and to a port that no flow has used for long. The kernel would choose a port that
// is free for the destination. But conntrack remembers a flow for seconds, and all redirected flows have the same
// destination, so it changes the second of two equal ports: some flows would look masqueraded.
func bind(fd int, src netip.Addr, proto Proto) error {
	if proto == ICMP {
		return unix.Bind(fd, sockaddr(netip.AddrPortFrom(src, 0)))
	}
	for range 100 {
		if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(src, nextPort()))); !errors.Is(err, unix.EADDRINUSE) {
			return err
		}
	}
	return unix.EADDRINUSE
}

// firstPort is the lowest port that nextPort returns. The lists in profiles name only some of these ports.
const firstPort = 20000

func nextPort() uint16 {
	const count = 40000
	return uint16(firstPort + lastPort.Add(1)%count)
}

// close resets the connection, so that no TIME_WAIT remains.
func (c *client) close() {
	_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	unix.Close(c.fd)
}

// connect connects and waits until the connection is established.
func (c *client) connect(to netip.AddrPort) error {
	err := unix.Connect(c.fd, sockaddr(to))
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	return c.rounds.until(c.silent, func() (bool, error) {
		if errno, err := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || errno != 0 {
			return true, errors.Join(err, unix.Errno(errno))
		}
		_, err := unix.Getpeername(c.fd)
		return err == nil, nil
	})
}

// read waits for data, or for the end of the stream, which is 0 bytes.
func (c *client) read(into []byte) (n int, err error) {
	err = c.rounds.until(c.silent, func() (bool, error) {
		if n, err = unix.Read(c.fd, into); errors.Is(err, unix.EAGAIN) {
			return false, nil
		}
		return true, err
	})
	return max(n, 0), err
}

// ask sends a question and returns the answer.
func (c *client) ask(question string) (answer, error) {
	if _, err := unix.Write(c.fd, []byte(question)); err != nil {
		return answer{}, err
	}
	var line [256]byte
	n, err := c.read(line[:])
	if err != nil {
		return answer{}, err
	}
	return parseAnswer(string(line[:n]))
}

// local returns the socket's own address.
func (c *client) local() netip.AddrPort {
	sa, err := unix.Getsockname(c.fd)
	if err != nil {
		return netip.AddrPort{}
	}
	return addrPort(sa)
}

// exchange connects, asks, and returns where the flow landed.
func (c *client) exchange(f Flow, family Family) Outcome {
	to := netip.AddrPortFrom(f.To.Addr(family), f.Port)
	if f.Proto == ICMP {
		to = netip.AddrPortFrom(to.Addr(), 1) // ignored, but with port 0 the socket never counts as connected
	}
	if err := c.connect(to); err != nil {
		return failure(err)
	}
	if f.Proto == ICMP {
		return c.ping(f, family)
	}
	return c.answered(f)
}

const portChanged = " (port changed)"

// unheard is the note of a flow that has reached a server whose answer has not arrived.
const unheard = "no answer comes back"

// lastQuestion is the number of the last question of answered.
var lastQuestion atomic.Uint32

// answered asks who has accepted the connection. Without an answer, it returns who received the question: conntrack's
// view of the connection may block the answer, but then the client's packets have passed.
func (c *client) answered(f Flow) Outcome {
	question := fmt.Sprint("who ", lastQuestion.Add(1))
	if f.As != "" {
		question += " as=" + string(f.As)
	}
	note := ""
	a, err := c.ask(question + "\n")
	if err != nil {
		found := false
		if a, found = c.rounds.heard(question); !found {
			return failure(err)
		}
		note = unheard
	}
	o := Outcome{Landed: a.landing, Dst: a.dst.String(), Source: a.remote.Addr().String(), Note: note}
	if a.remote.Port() != c.local().Port() {
		o.Source += portChanged
	}
	if f.Proto == UDP && a.landing == AtDNS {
		o.Dst = ""
	}
	return o
}

// ping sends an echo request, which the kernel of the destination answers.
func (c *client) ping(f Flow, family Family) Outcome {
	request := []byte{8, 0, 0, 0, 0, 0, 0, 1, 'w', 'h', 'o'} // the kernel fills in checksum and identifier
	if family == IPv6 {
		request[0] = 128
	}
	if _, err := unix.Write(c.fd, request); err != nil {
		return failure(err)
	}
	var reply [64]byte
	n, err := c.read(reply[:])
	if err != nil {
		return failure(err)
	}
	if n != len(request) || !strings.HasSuffix(string(reply[:n]), "who") {
		return Outcome{Landed: Failed, Note: "not the echo"}
	}
	return Outcome{Landed: placeLanding(f.To), Dst: f.To.Addr(family).String()}
}

// placeLanding returns the landing of flows that reach the place.
func placeLanding(p Place) Landing {
	switch {
	case p.local():
		return AtApp
	case p == VM:
		return AtVM
	}
	return AtPeer
}

// failure returns the outcome for an error.
func failure(err error) Outcome {
	switch {
	case errors.Is(err, errSilence):
		return Outcome{Landed: Timeout}
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ECONNRESET):
		return Outcome{Landed: Refused}
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EACCES):
		return Outcome{Landed: Unreachable}
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return Outcome{Landed: NoAddress}
	}
	return Outcome{Landed: Failed, Note: err.Error()}
}

package testnet

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// server is an event loop on a thread of its own, with the identity of a stand-in: the credentials of an accepted
// connection are those of the thread that accepts it, and rules look at them when the answer leaves.
type server struct {
	epoll   int
	wake    int // eventfd that ends the wait for pending
	pending chan func()
	ended   chan struct{}
	sockets map[int]*endpoint
	plain   bool              // who listens at the sidecar's inbound port has no transparent socket
	heard   map[string]answer // what was said to each question since the rounds began, whether it has arrived or not
}

// endpoint is one socket of a server.
type endpoint struct {
	fd      int
	landing Landing
	kind    endpointKind
	port    uint16
	replies map[string]int // for the DNS stand-in: other sockets to answer from, by name
}

type endpointKind int

// backlog is more than the flows that are in the air at once.
const backlog = 128

const (
	tcpListener endpointKind = iota
	tcpConn
	udpSocket
)

// startServer starts an empty server in the node with the host's IDs.
func startServer(ns *os.File, who ids) (*server, error) {
	t, err := startThread(ns, who)
	if err != nil {
		return nil, err
	}
	s := &server{pending: make(chan func(), 16), ended: make(chan struct{}), sockets: map[int]*endpoint{},
		heard: map[string]answer{}}
	t.do(func() {
		if s.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err == nil {
			s.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		}
		if err == nil {
			err = unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, s.wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s.wake)})
		}
	})
	if err != nil {
		t.stop()
		return nil, fmt.Errorf("making an event loop: %w", err)
	}
	t.calls <- s.loop
	t.stop()
	return s, nil
}

// loop serves until a pending call closes the epoll descriptor.
func (s *server) loop() {
	defer close(s.ended)
	events := make([]unix.EpollEvent, 64)
	for {
		n, err := unix.EpollWait(s.epoll, events, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return
		}
		for _, event := range events[:n] {
			if fd := int(event.Fd); fd != s.wake {
				s.serve(fd)
				continue
			}
			var count [8]byte
			_, _ = unix.Read(s.wake, count[:])
			for len(s.pending) > 0 {
				(<-s.pending)()
			}
			if s.sockets == nil {
				return
			}
		}
	}
}

// do runs call on the server's thread and waits for it.
func (s *server) do(call func()) { <-s.submit(call) }

// submit lets call be run on the server's thread, after which it closes the channel.
func (s *server) submit(call func()) <-chan struct{} {
	done := make(chan struct{})
	s.pending <- func() { defer close(done); call() }
	_, _ = unix.Write(s.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	return done
}

// stop closes everything and ends the thread.
func (s *server) stop() {
	s.do(func() {
		for fd := range s.sockets {
			s.abort(fd)
		}
		s.sockets = nil // ends the loop
	})
	<-s.ended
	unix.Close(s.epoll)
	unix.Close(s.wake)
}

func (s *server) add(e *endpoint) error {
	s.sockets[e.fd] = e
	return unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, e.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(e.fd)})
}

// remove closes a socket, which also leaves the epoll set. A child of this process between fork and exec has it open,
// too: a listener must be shut down, or its port stays taken that long.
func (s *server) remove(fd int) {
	if s.sockets[fd] != nil && s.sockets[fd].kind == tcpListener {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
	}
	delete(s.sockets, fd)
	unix.Close(fd)
}

// abort ends a socket so that the kernel keeps nothing of it: what it keeps of a connection whose other end does not
// hear of the end takes the packets of the next one with the same four numbers, also of one that was only to pass by.
func (s *server) abort(fd int) {
	if s.sockets[fd].kind == tcpConn {
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	s.remove(fd)
}

// forget aborts all connections, and puts new listeners in the place of the old ones: what has not become a connection
// ends with its listener.
func (s *server) forget() (err error) {
	s.do(func() {
		for fd, e := range maps.Clone(s.sockets) {
			switch e.kind {
			case tcpConn:
				s.abort(fd)
			case tcpListener:
				local, nameErr := unix.Getsockname(fd)
				if nameErr != nil {
					err = nameErr
					return
				}
				s.remove(fd)
				err = errors.Join(err, s.listen(e.landing, addrPort(local).Addr(), e.port))
			}
		}
	})
	return err
}

// serve handles one event. Connections are short: one question, one answer, then the client resets.
func (s *server) serve(fd int) {
	e := s.sockets[fd]
	if e == nil {
		return // closed by an earlier event of the same round
	}
	switch e.kind {
	case tcpListener:
		for {
			conn, _, err := unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			if err != nil {
				return
			}
			if s.add(&endpoint{fd: conn, landing: e.landing, kind: tcpConn, port: e.port}) != nil {
				s.remove(conn)
			}
		}
	case tcpConn:
		var question [64]byte
		n, err := unix.Read(fd, question[:])
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if n <= 0 {
			s.remove(fd)
			return
		}
		if strings.TrimSpace(string(question[:n])) == "" {
			return // the data of a SYN
		}
		a := e.describe()
		s.hear(question[:n], a)
		_, _ = unix.Write(fd, []byte(a.String()))
	case udpSocket:
		e.answer(s.hear)
	}
}

// hear remembers a question.
func (s *server) hear(question []byte, a answer) { s.heard[strings.TrimSpace(string(question))] = a }

// describe returns what a connection knows about itself.
func (e *endpoint) describe() answer {
	a := answer{landing: e.landing}
	if local, err := unix.Getsockname(e.fd); err == nil {
		a.local = addrPort(local)
	}
	if remote, err := unix.Getpeername(e.fd); err == nil {
		a.remote = addrPort(remote)
	}
	a.dst = a.local
	// A connection that REDIRECT turned around arrives at the listener's own port; conntrack knows what it was before.
	// One that TPROXY turned around keeps its destination as its local address.
	if a.local.Port() == e.port && e.landing.isListener() {
		if original, err := originalDst(e.fd, a.local.Addr()); err == nil {
			a.dst = original
		}
	}
	return a
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

func sockaddr(ap netip.AddrPort) unix.Sockaddr {
	if ap.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()}
}

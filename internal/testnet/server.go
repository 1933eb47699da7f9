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

// server is an event loop on its own thread with a stand-in's identity. An accepted connection has the credentials of
// the thread that accepts it, and rules match them when the answer leaves.
type server struct {
	epoll   int
	wake    int // an eventfd that wakes the loop for pending calls
	pending chan func()
	ended   chan struct{}
	sockets map[int]*endpoint
	plain   bool              // the listener on the sidecar's inbound port is not transparent
	heard   map[string]answer // the answer to each question since the rounds began, whether or not it has arrived
}

// endpoint is one socket of a server.
type endpoint struct {
	fd      int
	landing Landing
	kind    endpointKind
	port    uint16
	replies map[string]int // for the DNS stand-in: more sockets to answer from, by name
}

type endpointKind int

// backlog is more than the number of flows that run at once.
const backlog = 128

const (
	tcpListener endpointKind = iota
	tcpConn
	udpSocket
)

// startServer starts an empty server in the namespace with the IDs, as the host sees them.
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

// submit queues call for the server's thread, which closes the channel after the call.
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

// remove closes a socket, which also removes it from the epoll set. A child process has a copy of it between its fork
// and its exec, so a listener must be shut down: its port would otherwise stay in use that long.
func (s *server) remove(fd int) {
	if s.sockets[fd] != nil && s.sockets[fd].kind == tcpListener {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
	}
	delete(s.sockets, fd)
	unix.Close(fd)
}

// abort closes a socket with a reset, so that the kernel keeps no state of it. The state of a connection whose other
// end is not told would receive the packets of the next connection with the same addresses and ports, even of a
// forwarded one.
func (s *server) abort(fd int) {
	if s.sockets[fd].kind == tcpConn {
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	s.remove(fd)
}

// forget aborts all connections and replaces the listeners: connections that are not yet accepted end with their
// listener.
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

// serve handles one event. Connections are short: one question, one answer, and the client resets.
func (s *server) serve(fd int) {
	e := s.sockets[fd]
	if e == nil {
		return // closed by an earlier event of the same iteration
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

// hear stores the answer to a question.
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
	// A connection that REDIRECT has redirected arrives at the listener's own port, and conntrack knows its original
	// destination. With TPROXY its local address is the original destination.
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

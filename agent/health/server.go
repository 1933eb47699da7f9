package health

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
)

// Limits of a connection, which serves one request.
const (
	headerTimeout = 5 * time.Second
	answerTimeout = 10 * time.Second // for the rest of the connection, after the request's header
	maxHeader     = 8 << 10
)

// retry is the time between two attempts to listen.
const retry = 2 * time.Second

// Server is the agent's HTTP server. If another process has its port, the agent does not end: its work for the node's
// pods does not need the port.
type Server struct {
	address        string
	log            logrus.FieldLogger
	header, answer time.Duration // limits of a connection

	mu      sync.Mutex
	bound   net.Addr // nil: it is not listening
	problem string   // why it is not listening
}

// NewServer returns a server for the address. It does not listen yet.
func NewServer(address string, log logrus.FieldLogger) *Server {
	return &Server{address: address, log: log, header: headerTimeout, answer: answerTimeout, problem: "starting"}
}

// Listening returns whether the server is listening, and if not why.
func (s *Server) Listening() (ok bool, detail string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bound == nil {
		return false, s.problem
	}
	return true, s.bound.String()
}

// Run serves until the context ends, and returns when no connection is left. While it cannot listen, it tries again.
func (s *Server) Run(ctx context.Context, h http.Handler) {
	for ctx.Err() == nil {
		if err := s.serve(ctx, h); err != nil && ctx.Err() == nil {
			s.missing(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retry):
		}
	}
}

// serve listens and serves until the context ends.
func (s *Server) serve(ctx context.Context, h http.Handler) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", s.address)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.bound = l.Addr()
	s.mu.Unlock()
	server := http.Server{
		Handler: h, ReadHeaderTimeout: s.header, ReadTimeout: s.header, WriteTimeout: s.answer,
		MaxHeaderBytes: maxHeader,
	}
	server.SetKeepAlivesEnabled(false) // an idle connection would use memory without a benefit
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	conns := newLimited(l)
	defer conns.end()
	return server.Serve(conns)
}

// missing stores why the server is not listening, and logs it once.
func (s *Server) missing(err error) {
	var because *net.OpError
	text := err.Error()
	if errors.As(err, &because) {
		text = because.Err.Error()
	}
	s.mu.Lock()
	known := s.bound == nil && s.problem == text
	s.bound, s.problem = nil, text
	s.mu.Unlock()
	if !known {
		s.log.WithError(err).Warn("no HTTP on " + s.address + ", so the kubelet takes the agent for not ready; it works " +
			"all the same, and tries again")
	}
}

package apiserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"time"
)

// Gate is a reverse proxy in front of the API server that can inject errors. It only affects clients that connect to
// its address.
type Gate struct {
	proxy *httputil.ReverseProxy

	mu      sync.Mutex
	trouble Trouble
	ctx     context.Context // of the current requests, watches included
	cut     context.CancelFunc
}

// Trouble says what happens to requests. The zero value passes them on.
type Trouble struct {
	Delay  time.Duration // wait before a request is passed on
	Status int           // return this HTTP status instead of calling the API server
	Abort  bool          // close the connection without a response
}

// NewGate returns a Gate that listens on an address, with the API server's own certificate.
func (s *Server) NewGate(address string) (*Gate, error) {
	target, err := url.Parse(s.URL())
	if err != nil {
		return nil, err
	}
	authority, err := os.ReadFile(s.pki.ca.cert)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return nil, errors.New("no certificate in " + s.pki.ca.cert)
	}
	own, err := tls.LoadX509KeyPair(s.pki.serving.cert, s.pki.serving.key)
	if err != nil {
		return nil, err
	}
	g := &Gate{proxy: &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2: true},
		FlushInterval: -1, // flush immediately, for watches
		ErrorLog:      log.New(io.Discard, "", 0),
	}}
	g.Set(Trouble{})
	l, err := tls.Listen("tcp", address, &tls.Config{Certificates: []tls.Certificate{own},
		NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12})
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: g, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(l) }()
	return g, nil
}

// Set sets what happens to requests from now on. Setting trouble also aborts the current requests, watches included.
// Ending trouble aborts nothing, so a watch that was opened during trouble stays open.
func (g *Gate) Set(t Trouble) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.trouble = t
	if g.cut != nil && t == (Trouble{}) {
		return
	}
	if g.cut != nil {
		g.cut()
	}
	g.ctx, g.cut = context.WithCancel(context.Background())
}

// ServeHTTP passes a request on to the API server, or applies the current Trouble to it.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	trouble, now := g.trouble, g.ctx
	g.mu.Unlock()
	ctx, end := context.WithCancel(r.Context())
	defer end()
	defer context.AfterFunc(now, end)()
	select {
	case <-time.After(trouble.Delay):
	case <-ctx.Done():
	}
	switch {
	case trouble.Abort || ctx.Err() != nil:
		panic(http.ErrAbortHandler)
	case trouble.Status != 0:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(trouble.Status)
		_, _ = fmt.Fprintf(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "trouble", "code": %d}`,
			trouble.Status)
		return
	}
	g.proxy.ServeHTTP(w, r.WithContext(ctx))
}

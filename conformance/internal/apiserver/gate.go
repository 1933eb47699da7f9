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

// Gate stands in front of the API server, for clients that can be made to come by it, and lets them feel what one in
// trouble is like.
type Gate struct {
	proxy *httputil.ReverseProxy

	mu      sync.Mutex
	trouble Trouble
	ctx     context.Context // of the requests under way, watches included
	cut     context.CancelFunc
}

// Trouble is what happens to requests. Its zero value is none.
type Trouble struct {
	Delay  time.Duration // before a request is passed on
	Status int           // the HTTP status of the answer, instead of the API server's
	Abort  bool          // the connection breaks off
}

// NewGate listens on an address, with the API server's own certificate.
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
		FlushInterval: -1, // a watch
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

// Set says what happens from now on. With trouble, requests that are under way break off, watches too. The end of
// trouble breaks nothing: a watch that has come back stays.
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

// ServeHTTP passes a request on, unless there is trouble.
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

package main

import (
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
)

// peerPort is the port of the server that pods call. It runs outside the nodes.
const peerPort = 8081

// peer stores when each pod's first request arrived. A request through Envoy has a header x-request-id
// (https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers).
type peer struct {
	mu     sync.Mutex
	direct map[string]time.Time
	passed map[string]time.Time
}

func newPeer() (*peer, error) {
	p := &peer{direct: map[string]time.Time{}, passed: map[string]time.Time{}}
	l, err := net.Listen("tcp", net.JoinHostPort(cluster.Address, fmt.Sprint(peerPort)))
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(l) }()
	return p, nil
}

// url returns the URL that a pod calls.
func (p *peer) url(pod string) string {
	return fmt.Sprintf("http://%s:%d/%s", cluster.Address, peerPort, pod)
}

// ServeHTTP stores which pod the request is from, and whether it came through Envoy.
func (p *peer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	seen, name := p.direct, r.URL.Path[1:]
	if r.Header.Get("X-Request-Id") != "" {
		seen = p.passed
	}
	p.mu.Lock()
	if _, known := seen[name]; !known {
		seen[name] = time.Now()
	}
	p.mu.Unlock()
	fmt.Fprintln(w, "peer")
}

// first returns when a pod's first request arrived, either directly or through Envoy.
func (p *peer) first(pod string, direct bool) (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.passed
	if direct {
		seen = p.direct
	}
	at, arrived := seen[pod]
	return at, arrived
}

package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/internal/standin"
)

// page is the answer of the HTTP and gRPC server: what it has seen of the request.
type page struct {
	Name   string // of the server
	Host   string // in the request
	Client string // x-forwarded-client-cert: what the server's sidecar has verified of the peer's certificate
}

// healthy is the path of gRPC's health checks, and serving the message that all is well
// (https://github.com/grpc/grpc/blob/master/doc/health-checking.md).
const healthy, serving = "/grpc.health.v1.Health/Check", "\x08\x01"

// patience is the time for a call that is made on request, and for its server. It is long, because on a busy machine no
// call must count as lost that was only slow.
const patience = 30 * time.Second

// serveWeb answers HTTP/1.1, and HTTP/2 without TLS, with a page as JSON. It also answers gRPC's health checks, and
// /metrics with a metric of its own.
func serveWeb(port, name string) {
	handler := func(w http.ResponseWriter, r *http.Request) {
		answer := page{name, r.Host, r.Header.Get("X-Forwarded-Client-Cert")}
		switch {
		case strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc"):
			serveHealth(w, r)
		case r.URL.Path == "/metrics":
			fmt.Fprintln(w, "shop_orders 7")
		default:
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(answer)
		}
	}
	server := &http.Server{Addr: ":" + port, Handler: http.HandlerFunc(handler), ReadHeaderTimeout: patience,
		Protocols: new(http.Protocols)}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	fatal(server.ListenAndServe())
}

// serveHealth answers one gRPC call (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md): a message with
// its length, and the status as a trailer.
func serveHealth(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	if r.URL.Path == healthy {
		_, _ = w.Write(grpcMessage(serving))
		w.Header().Set("Grpc-Status", "0")
	} else {
		w.Header().Set("Grpc-Status", "12")
	}
}

func grpcMessage(text string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(text))), text...)
}

// serveCalls makes calls on request. GET /?to=http://HOST:PORT/PATH, or grpc:// or tcp:// instead of http://, answers
// with the result of the call as JSON.
func serveCalls(port, name string) {
	handler := func(w http.ResponseWriter, r *http.Request) {
		var answer result
		scheme, rest, _ := strings.Cut(r.URL.Query().Get("to"), "://")
		switch scheme {
		case "http":
			answer = callHTTP(r.Context(), "http://"+rest)
		case "grpc":
			answer = callHealth(r.Context(), "http://"+strings.TrimSuffix(rest, "/")+healthy)
		case "tcp":
			body, err := standin.Call{Network: "tcp", Address: rest, Name: name, Patience: patience}.Make()
			answer = heard(0, []byte(body), err)
		default:
			answer.Error = fmt.Sprintf("to: no such scheme: %q", scheme)
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	}
	server := &http.Server{Addr: ":" + port, Handler: http.HandlerFunc(handler), ReadHeaderTimeout: patience}
	fatal(server.ListenAndServe())
}

// result is the result of a call.
type result struct {
	Status int    // of HTTP or gRPC; 0 for TCP
	Body   string // what was received
	Error  string // why nothing was received
}

func heard(status int, body []byte, err error) result {
	if err != nil {
		return result{Error: err.Error()}
	}
	return result{Status: status, Body: string(body)}
}

// client returns an HTTP client that makes a new connection for each call.
func client(protocols func(*http.Protocols)) *http.Client {
	transport := &http.Transport{DisableKeepAlives: true, Protocols: new(http.Protocols)}
	transport.DialContext = (&net.Dialer{Timeout: patience}).DialContext
	protocols(transport.Protocols)
	return &http.Client{Transport: transport, Timeout: 2 * patience}
}

func callHTTP(ctx context.Context, url string) result {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return heard(0, nil, err)
	}
	answer, err := client(func(p *http.Protocols) { p.SetHTTP1(true) }).Do(r)
	if err != nil {
		return heard(0, nil, err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	return heard(answer.StatusCode, body, err)
}

// get gets a page by HTTP. A refusal is an error.
func get(url string) (string, error) {
	answer := callHTTP(context.Background(), url)
	switch {
	case answer.Error != "":
		return "", errors.New(answer.Error)
	case answer.Status >= http.StatusBadRequest:
		return "", fmt.Errorf("status %d", answer.Status)
	}
	return strings.TrimSpace(answer.Body), nil
}

// callHealth calls the health check of a gRPC server.
func callHealth(ctx context.Context, url string) result {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(string(grpcMessage(""))))
	if err != nil {
		return heard(0, nil, err)
	}
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("TE", "trailers")
	answer, err := client(func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }).Do(r)
	if err != nil {
		return heard(0, nil, err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	status := answer.Trailer.Get("Grpc-Status") + answer.Header.Get("Grpc-Status") // in the headers without a message
	if err == nil && status != "0" {
		err = fmt.Errorf("status %q of gRPC, %s: %s %q", status, answer.Status, answer.Header.Get("Grpc-Message"), body)
	}
	return heard(answer.StatusCode, body, err)
}

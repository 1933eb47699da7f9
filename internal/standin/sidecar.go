package standin

import (
	"bufio"
	"fmt"
	"net"
	"strings"
)

// Names of the stand-ins in answers.
const (
	Outbound = "sidecar-outbound"
	Inbound  = "sidecar-inbound"
	DNS      = "sidecar-dns"
	App      = "app"
	Peer     = "peer"
)

// Sidecar is the stand-in for Istio's proxy.
type Sidecar struct {
	Outbound, Inbound, DNS uint16 // ports
	// Transparent says that inbound connections arrive unchanged (TPROXY). It needs CAP_NET_ADMIN.
	Transparent bool
	// Seal is that of the callers. Others get no answer.
	Seal Seal
	// Quit, if not nil, is called when a process of the pod requests it, as with Istio's pilot-agent.
	Quit func()
}

// Ports of a sidecar that are not configurable.
const (
	quitPort  = 15020
	ReadyPort = 15021 // for the kubelet's probes that Istio's injector configures
)

// Start starts the servers. It calls failed with an error that ends a server.
func (s Sidecar) Start(failed func(error)) error {
	serve := func(l net.Listener, name string, asked Asked) error {
		return ServeCallers(l, func(c *net.TCPConn, line string) string {
			return s.Seal.guarded(func(string) string { return name + " " + asked(c) })(line)
		})
	}
	inbound := OriginalDestination
	if s.Transparent {
		inbound = Destination
	}
	var servers []func() error
	for _, port := range []struct {
		number      uint16
		transparent bool
		serve       func(net.Listener) error
	}{
		{s.Outbound, false, func(l net.Listener) error { return serve(l, Outbound, OriginalDestination) }},
		{s.Inbound, s.Transparent, func(l net.Listener) error { return serve(l, Inbound, inbound) }},
		{s.DNS, false, func(l net.Listener) error { return serve(l, DNS, OriginalDestination) }},
		{quitPort, false, s.serveHTTP},
		{ReadyPort, false, s.serveHTTP}, // last: a sidecar that is ready has all of them
	} {
		l, err := Listen(port.number, port.transparent)
		if err != nil {
			return err
		}
		servers = append(servers, func() error { return port.serve(l) })
	}
	answer := s.Seal.guarded(func(string) string { return DNS })
	// redirected packets arrive there, and answers must be sent from there
	for _, address := range []string{"127.0.0.1", "::1"} {
		packets, err := net.ListenPacket("udp", net.JoinHostPort(address, fmt.Sprint(s.DNS)))
		if err == nil {
			servers = append(servers, func() error { return ServeUDP(packets, answer) })
		} else if address == "127.0.0.1" { // the pod may have no IPv6
			return err
		}
	}
	for _, serve := range servers {
		go func() { failed(serve()) }()
	}
	return nil
}

// serveHTTP answers every request with 200. One of them asks the sidecar to quit.
func (s Sidecar) serveHTTP(l net.Listener) error {
	return accept(l, func(c *net.TCPConn) {
		quits := false
		for lines := bufio.NewReader(c); ; {
			line, err := lines.ReadString('\n')
			if err != nil || strings.TrimSpace(line) == "" {
				break
			}
			quits = quits || strings.HasPrefix(line, quit)
		}
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		if quits && s.Quit != nil && c.RemoteAddr().(*net.TCPAddr).IP.IsLoopback() {
			s.Quit()
		}
	})
}

// quit is the start of the request to quit, as for Istio's pilot-agent.
const quit = "POST /quitquitquit "

// Ready reports whether the sidecar in this pod is ready: a stand-in or Istio's.
func Ready() bool { return request(ReadyPort, "GET /healthz/ready ") == nil }

// Quit asks the stand-in of the sidecar in this pod to quit.
func Quit() error { return request(quitPort, quit) }

func request(port uint16, what string) error {
	_, err := ask("127.0.0.1:"+fmt.Sprint(port), what, "a")
	return err
}

package standin

import (
	"bufio"
	"fmt"
	"net"
	"strings"
)

// Names by which the stand-ins answer.
const (
	Outbound = "sidecar-outbound"
	Inbound  = "sidecar-inbound"
	DNS      = "sidecar-dns"
	App      = "app"
	Peer     = "peer"
)

// Sidecar stands in for Istio's proxy.
type Sidecar struct {
	Outbound, Inbound, DNS uint16 // ports
	// Transparent says that inbound connections come unchanged (TPROXY), which takes CAP_NET_ADMIN.
	Transparent bool
	// Seal is that of who calls: strangers get no answer.
	Seal Seal
	// Quit, where it is not nil, is called when a process of the pod asks for it, as of Istio's pilot-agent.
	Quit func()
}

// Ports of a sidecar that nobody changes.
const (
	quitPort  = 15020
	ReadyPort = 15021 // where the kubelet's probes go that Istio's injector writes
)

// Start listens, and serves from then on. What ends a server is told to failed.
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
		{ReadyPort, false, s.serveHTTP}, // the last: who is ready has them all
	} {
		l, err := Listen(port.number, port.transparent)
		if err != nil {
			return err
		}
		servers = append(servers, func() error { return port.serve(l) })
	}
	answer := s.Seal.guarded(func(string) string { return DNS })
	// where redirected packets arrive, and answers have to come from
	for _, address := range []string{"127.0.0.1", "::1"} {
		packets, err := net.ListenPacket("udp", net.JoinHostPort(address, fmt.Sprint(s.DNS)))
		if err == nil {
			servers = append(servers, func() error { return ServeUDP(packets, answer) })
		} else if address == "127.0.0.1" { // the pod may be without IPv6
			return err
		}
	}
	for _, serve := range servers {
		go func() { failed(serve()) }()
	}
	return nil
}

// serveHTTP answers every request with 200, of which one asks to quit.
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

// quit begins the request of a process of the pod that the sidecar quit; it is as of Istio's pilot-agent.
const quit = "POST /quitquitquit "

// Ready reports whether the sidecar in this pod serves, a stand-in or Istio's.
func Ready() bool { return request(ReadyPort, "GET /healthz/ready ") == nil }

// Quit asks the stand-in of a sidecar in this pod to quit.
func Quit() error { return request(quitPort, quit) }

func request(port uint16, what string) error {
	_, err := ask("127.0.0.1:"+fmt.Sprint(port), what, "a")
	return err
}

package standin

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/internal/escape"
)

// Ports on which a peer listens, beside HelperPort. Pods exclude the second one from capture.
const (
	PeerPort     = 8081
	ExcludedPort = 8082
	DNSPort      = 53
)

// Requests to a peer's helper: to call an address and to return who answers; and to start TLS with it and to return the
// identity in its certificate.
const (
	Dial     = "dial"
	Identity = "identity"
)

// StartPeer starts the peer's servers. They answer callers with the seal. It calls reached for every caller that tells
// its name, except at ExcludedPort, and failed with an error that ends a server. If the user may not listen on DNSPort,
// it does without.
func StartPeer(seal Seal, reached func(caller string), failed func(error)) error {
	hear := seal.guarded(func(caller string) string { reached(caller); return Peer })
	answers := map[uint16]func(string) string{
		PeerPort: hear, DNSPort: hear, ExcludedPort: seal.guarded(func(string) string { return Peer }),
	}
	for port, answer := range answers {
		l, err := Listen(port, false)
		switch {
		case port == DNSPort && errors.Is(err, os.ErrPermission):
			continue
		case err != nil:
			return err
		}
		go func() { failed(ServeCallers(l, func(_ *net.TCPConn, line string) string { return answer(line) })) }()
	}
	helper := Helper(func(what string, from, to netip.AddrPort) (string, error) {
		return help(what, from, to, seal, hear)
	})
	for _, server := range []struct {
		port   uint16
		answer func(string) string
	}{
		{DNSPort, hear},
		{HelperPort, seal.guarded(helper.Answer)}, // last: a peer whose helper answers has all of them
	} {
		packets, err := net.ListenPacket("udp", fmt.Sprint(":", server.port))
		switch {
		case server.port == DNSPort && errors.Is(err, os.ErrPermission):
			continue
		case err != nil:
			return err
		}
		go func() { failed(ServeUDP(packets, server.answer)) }()
	}
	return nil
}

// help does what an attempt needs outside the pod, and calls a pod that requests it.
func help(what string, from, to netip.AddrPort, seal Seal, answer func(line string) string) (string, error) {
	switch what {
	case Dial:
		return Call{Network: "tcp", Address: to.String(), Name: Peer, Seal: seal}.Make()
	case Identity:
		return identity(to)
	case "call":
		fd, err := escape.Call(from, to)
		if err == nil {
			go serveOne(os.NewFile(uintptr(fd), what), answer)
		}
		return Done, err
	}
	return Done, escape.Send(escape.Packet(what), from, to)
}

// serveOne answers one line on a connection that the peer has opened.
func serveOne(c *os.File, answer func(line string) string) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * patience)) // the attempt uses it only later
	if line, err := bufio.NewReader(c).ReadString('\n'); err == nil {
		fmt.Fprintln(c, answer(strings.TrimSpace(line)))
	}
}

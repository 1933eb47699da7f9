package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/internal/escape"
	"github.com/istio-pod-network/controller/internal/standin"
)

// Ports on which the peer listens. A connection to peerPort, or a DNS query, from the app of a mesh pod is a leak. Pods
// may exclude excludedPort from redirection. At standin.HelperPort the peer helps with attempts to get around a
// sidecar.
const (
	peerPort     = 8081
	excludedPort = 8082
)

// Targets of the apps, in the form that podprogram takes.
var (
	target4  = fmt.Sprintf("tcp:%s:%d", cluster.Address, peerPort)
	target6  = fmt.Sprintf("tcp:[%s]:%d", cluster.Address6, peerPort)
	excluded = fmt.Sprintf("tcp:%s:%d", cluster.Address, excludedPort)
	dns      = fmt.Sprintf("udp:%s:53", cluster.Address)
)

// peer is a server outside the nodes. It counts who has reached it. An app sends its name in the first line. A proxy
// that forwards the connection sends a header of the PROXY protocol before.
type peer struct {
	mu       sync.Mutex
	direct   map[string]int // connections and packets without a proxy, by the app's name
	mediated map[string]int // connections through a proxy
}

func newPeer() (*peer, error) {
	p := &peer{direct: map[string]int{}, mediated: map[string]int{}}
	for _, address := range []string{cluster.Address, cluster.Address6} {
		for port, counts := range map[int]bool{peerPort: true, excludedPort: false} {
			l, err := net.Listen("tcp", net.JoinHostPort(address, fmt.Sprint(port)))
			if err != nil {
				return nil, err
			}
			go p.serve(l, counts)
		}
		questions, err := net.ListenPacket("udp", net.JoinHostPort(address, fmt.Sprint(standin.HelperPort)))
		if err != nil {
			return nil, err
		}
		go func() { _ = standin.ServeUDP(questions, standin.Helper(p.help).Answer) }()
	}
	packets, err := net.ListenPacket("udp", net.JoinHostPort(cluster.Address, "53"))
	if err == nil {
		go p.answer(packets)
	}
	return p, err
}

func (p *peer) serve(l net.Listener, counts bool) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go p.serveOne(c, counts)
	}
}

// connection is what serveOne needs of a connection.
type connection interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
}

func (p *peer) serveOne(c connection, counts bool) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	lines := bufio.NewReader(c)
	line, _ := lines.ReadString('\n')
	seen := p.direct
	if strings.HasPrefix(line, "PROXY ") {
		line, _ = lines.ReadString('\n')
		seen = p.mediated
	}
	if counts {
		p.count(seen, line)
	}
	fmt.Fprintln(c, "peer")
}

// help does what attempts of pods need from a server outside.
func (p *peer) help(what string, from, to netip.AddrPort) (string, error) {
	if what != "call" {
		return standin.Done, escape.Send(escape.Packet(what), from, to)
	}
	fd, err := escape.Call(from, to)
	if err == nil {
		go p.serveOne(os.NewFile(uintptr(fd), fmt.Sprint(what, " ", from, " ", to)), true)
	}
	return standin.Done, err
}

func (p *peer) answer(packets net.PacketConn) {
	_ = standin.ServeUDP(packets, func(line string) string {
		p.count(p.direct, line)
		return "peer"
	})
}

func (p *peer) count(seen map[string]int, line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen[strings.TrimSpace(line)]++
}

// reached returns how often the app of a pod has reached the peer without a proxy.
func (p *peer) reached(namespace, pod string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.direct[namespace+"/"+pod]
}

// passed returns how often the app of a pod has reached the peer through a proxy.
func (p *peer) passed(namespace, pod string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mediated[namespace+"/"+pod]
}

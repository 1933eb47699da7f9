package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/internal/testnet/escape"
)

// Where the peer listens. What comes to the first of the ports, or as DNS, from the app of a mesh pod is a leak; the
// second is one that pods may exclude. At the third, of UDP, it helps with attempts to get around a sidecar.
const (
	peerPort     = 8081
	excludedPort = 8082
	helperPort   = 8083
)

// Targets are what apps call, as podprogram takes them.
var (
	target4  = fmt.Sprintf("tcp:%s:%d", cluster.Address, peerPort)
	target6  = fmt.Sprintf("tcp:[%s]:%d", cluster.Address6, peerPort)
	excluded = fmt.Sprintf("tcp:%s:%d", cluster.Address, excludedPort)
	dns      = fmt.Sprintf("udp:%s:53", cluster.Address)
)

// peer is a server outside the nodes. It remembers who has reached it: an app says its name first, and a proxy that
// passes it on says before that whom it speaks for (the PROXY protocol).
type peer struct {
	mu       sync.Mutex
	direct   map[string]int // connections and packets without a proxy, by the name of the app
	mediated map[string]int // connections by way of a proxy
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
		questions, err := net.ListenPacket("udp", net.JoinHostPort(address, fmt.Sprint(helperPort)))
		if err != nil {
			return nil, err
		}
		go p.help(questions)
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

// connection is what serving one takes of it.
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

// help does for pods what their attempts need of somebody outside; podprogram says how it is asked.
func (p *peer) help(questions net.PacketConn) {
	reply(questions, func(line string) string {
		number, question, _ := strings.Cut(strings.TrimSpace(line), " ")
		answer := "done"
		if err := p.helpWith(question); err != nil {
			answer = err.Error()
		}
		return number + " " + answer + "\n"
	})
}

func (p *peer) helpWith(question string) error {
	if question == "round" {
		return nil
	}
	words := strings.Fields(question)
	if len(words) != 3 {
		return fmt.Errorf("no such question: %q", question)
	}
	from, err := netip.ParseAddrPort(words[1])
	to, wrong := netip.ParseAddrPort(words[2])
	if err = errors.Join(err, wrong); err != nil {
		return err
	}
	if words[0] != "call" {
		return escape.Send(escape.Packet(words[0]), from, to)
	}
	fd, err := escape.Call(from, to)
	if err == nil {
		go p.serveOne(os.NewFile(uintptr(fd), question), true)
	}
	return err
}

func (p *peer) answer(packets net.PacketConn) {
	reply(packets, func(line string) string {
		p.count(p.direct, line)
		return "peer\n"
	})
}

// reply answers every packet until the socket is closed.
func reply(packets net.PacketConn, answer func(text string) string) {
	buffer := make([]byte, 512)
	for {
		n, from, err := packets.ReadFrom(buffer)
		if err != nil {
			return
		}
		_, _ = packets.WriteTo([]byte(answer(string(buffer[:n]))), from)
	}
}

func (p *peer) count(seen map[string]int, line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen[strings.TrimSpace(line)]++
}

// reached is how often the app of a pod has reached the peer without a proxy.
func (p *peer) reached(namespace, pod string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.direct[namespace+"/"+pod]
}

// passed is how often a proxy has passed it on.
func (p *peer) passed(namespace, pod string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mediated[namespace+"/"+pod]
}

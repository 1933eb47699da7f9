package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/istio-pod-network/controller/internal/testnet/escape"
)

const (
	// helperPort is where somebody at a server's address does what an attempt needs of somebody outside, by UDP, which
	// nobody redirects. It is asked by a line "NUMBER round", "NUMBER call FROM TO" or, with one of escape.Packet,
	// "NUMBER PACKET FROM TO", and answers "NUMBER done" or "NUMBER ERROR".
	helperPort = 8083
	// neverCaptured is a port of Envoy's that is not captured inbound, and that the stand-in does not have.
	neverCaptured = 15090
	// tries is how often each attempt is made: a busy kernel may lose a packet.
	tries = 3
	// silent is how many questions to the helper are answered, one after the other, until nothing else comes any more.
	silent = 30
)

// escapes makes all attempts that need no second interface, to every server at once, and says what became of each.
func escapes(name string, servers []string) {
	var all sync.WaitGroup
	for _, server := range servers {
		address, err := netip.ParseAddrPort(server)
		if err != nil {
			fatal(err)
		}
		h, err := newHelper(address.Addr())
		if err != nil {
			fatal(err)
		}
		all.Go(func() {
			for _, a := range escape.Attempts {
				for range tries {
					if a.In(address.Addr().Is6()) && !a.NeedsSecond() {
						try(a, h, address, name)
					}
				}
			}
		})
	}
	all.Wait()
	fmt.Println("all attempts made")
}

// try makes an attempt and prints who answers it, or why nobody does.
func try(a escape.Attempt, h *helper, server netip.AddrPort, name string) {
	what := a.Name + map[bool]string{false: " IPv4", true: " IPv6"}[server.Addr().Is6()]
	answer, err := attempt(a, h, server, name+" "+what)
	switch {
	case errors.Is(err, escape.ErrNotMade), errors.Is(err, errNoHelper):
		fmt.Println("escape", what, "not made:", err)
	case err != nil:
		fmt.Println("escape", what, "kept:", err)
	default:
		fmt.Println("escape", what, "answer", answer)
	}
}

// attempt makes an attempt, says who calls, and returns the answer.
func attempt(a escape.Attempt, h *helper, server netip.AddrPort, name string) (string, error) {
	address, own := h.own(), freePort()
	switch {
	case a.Called: // from a port that nobody has
		server = netip.AddrPortFrom(server.Addr(), freePort())
	case a.Helped:
		own = neverCaptured
	case a.Loopback:
		address = loopback[address.Is6()]
	}
	fd, err := a.Run(escape.Place{
		Pod: netip.AddrPortFrom(address, own), Server: server, Until: h.until,
		Send: func(what escape.Packet, from, to netip.AddrPort) error {
			return errors.Join(h.ask(fmt.Sprint(what, " ", from, " ", to)), h.ask("round"))
		},
		Call: func(from, to netip.AddrPort) error { return h.ask(fmt.Sprint("call ", from, " ", to)) },
	})
	if err != nil {
		return "", err
	}
	// The next attempt may have the same numbers, which a connection that ends in peace keeps for a minute.
	err = syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
	c := os.NewFile(uintptr(fd), a.Name)
	defer c.Close()
	if err != nil {
		return "", err
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(c, name); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(answer), err
}

// loopback is what an attempt from lo comes from, by whether it is IPv6.
var loopback = map[bool]netip.Addr{false: netip.MustParseAddr("127.0.0.6"), true: netip.MustParseAddr("::6")}

var lastPort atomic.Uint32

// freePort is one that nobody has had, below those that the kernel gives.
func freePort() uint16 { return 20000 + uint16(lastPort.Add(1)) }

// helper is somebody at the server's address.
type helper struct {
	c     net.Conn
	asked int
}

func newHelper(at netip.Addr) (*helper, error) {
	c, err := net.Dial("udp", netip.AddrPortFrom(at, helperPort).String())
	return &helper{c: c}, err
}

// own is the pod's address, by which it reaches the helper.
func (h *helper) own() netip.Addr { return h.c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap() }

var errNoHelper = errors.New("nobody helps")

// ask has the helper do something, and returns when it has.
func (h *helper) ask(question string) error {
	h.asked++
	for range 5 {
		if _, err := fmt.Fprintln(h.c, h.asked, question); err != nil {
			return errors.Join(errNoHelper, err)
		}
		if answer, heard := h.hear(fmt.Sprint(h.asked, " ")); heard && answer == "done" {
			return nil
		} else if heard {
			return fmt.Errorf("%w: %s", errNoHelper, answer)
		}
	}
	return errNoHelper
}

// hear reads until the answer with the number comes, or none.
func (h *helper) hear(number string) (string, bool) {
	_ = h.c.SetReadDeadline(time.Now().Add(patience))
	for buffer := make([]byte, 512); ; {
		n, err := h.c.Read(buffer)
		if err != nil {
			return "", false
		}
		if answer, found := strings.CutPrefix(strings.TrimSpace(string(buffer[:n])), number); found {
			return answer, true
		}
	}
}

var errSilence = errors.New("nobody answers")

// until tries until it is done or fails, and fails when so much has come back that was sent later that nothing else can
// come.
func (h *helper) until(try func() (bool, error)) error {
	for range silent {
		if done, err := try(); done || err != nil {
			return err
		}
		if err := h.ask("round"); err != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errSilence
}

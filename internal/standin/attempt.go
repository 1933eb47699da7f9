package standin

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/istio-pod-network/controller/internal/escape"
)

// neverCaptured is a port that is never captured inbound, and on which neither the stand-in nor Envoy listens, except
// in ambient mode.
const neverCaptured = 15008

// Attempt makes an attempt to get around a sidecar, against a server with a helper. It sends the caller's name and
// returns the answer. If the error is ErrNotMade, the attempt proves nothing.
func Attempt(a escape.Attempt, h *Asker, server netip.AddrPort, name string) (answer string, err error) {
	address, own := h.Own(), freePort()
	switch {
	case a.Called: // from an unused port
		server = netip.AddrPortFrom(server.Addr(), freePort())
	case a.Helped:
		own = neverCaptured
	case a.Loopback:
		address = loopback[address.Is6()]
	}
	fd, err := a.Run(escape.Place{
		Pod: netip.AddrPortFrom(address, own), Server: server, Until: h.until, Send: h.send, Call: h.call,
	})
	if errors.Is(err, ErrNoHelper) {
		return "", errors.Join(escape.ErrNotMade, err)
	}
	if err != nil {
		return "", err
	}
	// The next attempt may use the same addresses and ports. A connection that ends without a reset would keep them for
	// a minute.
	err = syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1})
	c := os.NewFile(uintptr(fd), a.Name)
	defer c.Close()
	if err != nil {
		return "", err
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	line, nonce := h.seal.call(name)
	if _, err := fmt.Fprintln(c, line); err != nil {
		return "", err
	}
	answer, err = bufio.NewReader(c).ReadString('\n')
	if answer = strings.TrimSpace(answer); answer == "" && err != nil {
		return "", err
	}
	answer, wrong := h.seal.answered(nonce, answer)
	return answer, cmp.Or(wrong, err)
}

// loopback is the source of an attempt from lo, by whether it is IPv6.
var loopback = map[bool]netip.Addr{false: netip.MustParseAddr("127.0.0.6"), true: netip.MustParseAddr("::6")}

var lastPort atomic.Uint32

// freePort returns a port that was not used before, below the kernel's ephemeral ports.
func freePort() uint16 { return 20000 + uint16(lastPort.Add(1)) }

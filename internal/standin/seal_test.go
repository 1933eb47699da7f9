package standin

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
)

// served starts a TCP server on this machine.
func served(t *testing.T, answer func(line string) string) (at string) {
	t.Helper()
	l, err := Listen(0, false)
	await.Must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() { _ = ServeCallers(l, func(_ *net.TCPConn, line string) string { return answer(line) }) }()
	return fmt.Sprint("127.0.0.1:", l.Addr().(*net.TCPAddr).Port)
}

// A caller and a server with the secret are accepted. Knowing the names, or having seen other calls, is not enough.
func TestSeal(t *testing.T) {
	const own, others = Seal("own"), Seal("another")
	var heard []string
	guarded := own.guarded(func(caller string) string { heard = append(heard, caller); return Peer + " 10.0.0.1:80" })
	at := served(t, guarded)
	call := func(to string, seal Seal) (string, error) {
		return Call{Network: "tcp", Address: to, Name: "mesh outbound IPv4", Seal: seal}.Make()
	}
	if answer, err := call(at, own); answer != "peer 10.0.0.1:80" || err != nil {
		t.Errorf("one of the run: %q, %v", answer, err)
	}
	for name, seal := range map[string]Seal{"no secret": "", "another secret": others} {
		if answer, _ := call(at, seal); answer != "" {
			t.Errorf("%s: the server says %q", name, answer)
		}
	}
	if len(heard) != 1 || heard[0] != "mesh outbound IPv4" {
		t.Errorf("heard: %q", heard)
	}
	line, _ := own.call("mesh outbound IPv4")
	for _, forged := range []string{strings.Replace(line, "outbound", "dns", 1), "mesh outbound IPv4",
		own.answer("nonce", "mesh outbound IPv4"), ""} {
		if answer := guarded(forged); answer != "" {
			t.Errorf("%q is heard", forged)
		}
	}
	seen := guarded(line) // the answer to another call
	for name, answer := range map[string]func(string) string{
		"names alone":    func(string) string { return Peer + " 10.0.0.1:80" },
		"another secret": others.guarded(func(string) string { return Peer }),
		"seen before":    func(string) string { return seen },
		"the call again": func(line string) string { return line },
	} {
		if got, err := call(served(t, answer), own); got != "" || !errors.Is(err, ErrStranger) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// A helper does nothing for strangers, and an Asker ignores what strangers send.
func TestSealedHelper(t *testing.T) {
	const own = Seal("own")
	done := 0
	helper := Helper(func(string, netip.AddrPort, netip.AddrPort) (string, error) { done++; return Done, nil })
	guarded := own.guarded(helper.Answer)
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	await.Must(t, err)
	defer packets.Close()
	c, err := net.Dial("udp", packets.LocalAddr().String())
	await.Must(t, err)
	defer c.Close()
	go func() {
		_ = ServeUDP(packets, func(line string) string {
			number, _, _ := strings.Cut(line, " ")
			_, _ = packets.WriteTo([]byte(number+" forged\n"), c.LocalAddr())
			return guarded(line)
		})
	}()
	answer, err := (&Asker{c: c, seal: own}).Ask("dial 10.0.0.1:80 10.0.0.1:80")
	if answer != Done || err != nil || done != 1 {
		t.Errorf("%q, %v: done %d times", answer, err, done)
	}
	for _, stranger := range []Seal{"", "another"} {
		line, _ := stranger.call("1 dial 10.0.0.1:80 10.0.0.1:80")
		if answer := guarded(line); answer != "" || done != 1 {
			t.Errorf("a stranger: %q, done %d times", answer, done)
		}
	}
}

// An app that is called by HTTP proves that it has the secret, too.
func TestSealedApp(t *testing.T) {
	l, err := Listen(0, false)
	await.Must(t, err)
	defer l.Close()
	go func() { _ = ServeApp(l, "own") }()
	at := fmt.Sprint("127.0.0.1:", l.Addr().(*net.TCPAddr).Port)
	if answer, err := CallByMesh(at, "own"); answer != "app" || err != nil {
		t.Errorf("by HTTP: %q, %v", answer, err)
	}
	if answer, err := CallByMesh(at, "another"); answer != "" || !errors.Is(err, ErrStranger) {
		t.Errorf("by HTTP, with another secret: %q, %v", answer, err)
	}
	answer, err := Call{Network: "tcp", Address: at, Name: "me", Seal: "own"}.Make()
	if answer != "app "+at || err != nil {
		t.Errorf("by a line: %q, %v", answer, err)
	}
}

package standin

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
)

// Who is not asked for what it knows says so.
func TestHelperRefuses(t *testing.T) {
	h := Helper(func(what string, _, to netip.AddrPort) (string, error) {
		if what == "nothing" {
			return "", errors.New("it\ncannot")
		}
		return what + " " + to.String(), nil
	})
	for question, want := range map[string]string{
		"1 round":                               "1 done",
		"2 dial 10.0.0.1:80 [fd00::1]:81":       "2 dial [fd00::1]:81",
		"3 nothing 10.0.0.1:80 10.0.0.1:80":     "3 error it cannot",
		"5 dial 10.0.0.1:80":                    `5 error no such question: "dial 10.0.0.1:80"`,
		"":                                      ` error no such question: ""`,
		"6 dial 10.0.0.1:80 10.0.0.1:80 please": `6 error no such question: "dial 10.0.0.1:80 10.0.0.1:80 please"`,
	} {
		if got := h.Answer(question); got != want {
			t.Errorf("%q: %q, want %q", question, got, want)
		}
	}
	if got := h.Answer("4 dial 10.0.0.1 10.0.0.1:80"); !strings.HasPrefix(got, "4 error ") {
		t.Errorf("an address without a port: %q", got)
	}
}

// A caller hears who answers, and an answer that is none is an error.
func TestCall(t *testing.T) {
	l, err := Listen(0, false)
	await.Must(t, err)
	defer l.Close()
	go func() { _ = Serve(l, App, Destination) }()
	for _, address := range []string{"127.0.0.1", "::1"} {
		_, port, _ := net.SplitHostPort(l.Addr().String())
		to := net.JoinHostPort(address, port)
		answer, err := Call{Network: "tcp", Address: to, Name: "me", Hops: 1}.Make()
		if answer != "app "+to || err != nil {
			t.Errorf("%s: %q, %v", to, answer, err)
		}
	}
	silent, err := Listen(0, false)
	await.Must(t, err)
	defer silent.Close()
	go func() { _ = accept(silent, func(*net.TCPConn) {}) }()
	if answer, err := (Call{Network: "tcp", Address: silent.Addr().String(), Name: "me"}).Make(); err == nil {
		t.Errorf("an answer from who says nothing: %q", answer)
	}
}

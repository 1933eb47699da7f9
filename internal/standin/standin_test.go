package standin

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/await"
)

// TestMain gives every call time for an answer on a busy machine.
func TestMain(m *testing.M) {
	patience = time.Minute
	os.Exit(m.Run())
}

// A helper answers an unknown request with an error.
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

// A caller gets the server's name, and an error for an invalid answer.
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

// An app that is called by HTTP returns what Envoy says about the caller.
func TestServeApp(t *testing.T) {
	l, err := Listen(0, false)
	await.Must(t, err)
	defer l.Close()
	go func() { _ = ServeApp(l, "") }()
	to := fmt.Sprint("127.0.0.1:", l.Addr().(*net.TCPAddr).Port)
	if answer, err := (Call{Network: "tcp", Address: to, Name: "me"}).Make(); answer != "app "+to || err != nil {
		t.Errorf("by a line: %q, %v", answer, err)
	}
	if answer, err := CallByMesh(to, ""); answer != "app" || err != nil {
		t.Errorf("without a certificate: %q, %v", answer, err)
	}
	const id = "spiffe://cluster.local/ns/a/sa/b"
	for header, want := range map[string]string{
		`X-Forwarded-Client-Cert: By=spiffe://c/ns/x/sa/y;Hash=ab;Subject="";URI=` + id:              "app " + id,
		`x-forwarded-client-cert: By=z;URI=spiffe://other/ns/a/sa/b,By=spiffe://c;Hash=ab;URI=` + id: "app " + id,
		`X-Forwarded-Client-Cert: By=spiffe://cluster.local/ns/x/sa/y;Hash=ab`:                       "app",
		`X-Request-Id: URI=` + id: "app",
	} {
		if answer, err := ask(to, "GET / ", "a\r\n"+header); answer != want || err != nil {
			t.Errorf("%s: %q, %v", header, answer, err)
		}
	}
	refusing, err := Listen(0, false)
	await.Must(t, err)
	defer refusing.Close()
	go func() {
		_ = ServeCallers(refusing, func(*net.TCPConn, string) string { return "HTTP/1.1 503 Service Unavailable\r\n\r\nno" })
	}()
	to = fmt.Sprint("127.0.0.1:", refusing.Addr().(*net.TCPAddr).Port)
	if answer, err := CallByMesh(to, ""); err == nil || !strings.Contains(err.Error(), "503 Service Unavailable") {
		t.Errorf("refused: %q, %v", answer, err)
	}
}

// certificate returns a workload's certificate.
func certificate(t *testing.T, uri string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	await.Must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	if uri != "" {
		u, err := url.Parse(uri)
		await.Must(t, err)
		template.URIs = []*url.URL{u}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	await.Must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// The identity of a sidecar is known, even if it then rejects a client without a certificate.
func TestIdentity(t *testing.T) {
	const id = "spiffe://cluster.local/ns/a/sa/b"
	for name, test := range map[string]struct{ uri, want string }{"of a workload": {id, id}, "of nobody": {"", ""}} {
		t.Run(name, func(t *testing.T) {
			l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate(t, test.uri)},
				ClientAuth: tls.RequireAnyClientCert, NextProtos: []string{"istio"}})
			await.Must(t, err)
			defer l.Close()
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go func() { _ = c.(*tls.Conn).HandshakeContext(context.Background()); _ = c.Close() }()
				}
			}()
			h := Helper(func(what string, from, to netip.AddrPort) (string, error) { return help(what, from, to, "", nil) })
			to := l.Addr().String()
			answer := h.Answer("1 identity " + to + " " + to)
			if test.want != "" && answer != "1 "+test.want || test.want == "" && !strings.HasPrefix(answer, "1 error ") {
				t.Errorf("%q", answer)
			}
		})
	}
	app, err := Listen(0, false)
	await.Must(t, err)
	defer app.Close()
	go func() { _ = ServeApp(app, "") }()
	port := app.Addr().(*net.TCPAddr).AddrPort().Port()
	defer func(more time.Duration) { patience = more }(patience)
	patience = Patience // it waits for the end of a line
	if got, err := identity(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)); err == nil {
		t.Errorf("an app without a sidecar has the identity %q", got)
	}
}

// Only an answer to the query is accepted.
func TestQuery(t *testing.T) {
	answer := func(query []byte) []byte {
		if len(query) < 12 || !strings.Contains(string(query), "\x06server\x06verify\x03svc\x00\x00\x01\x00\x01") {
			return []byte("no query of server.verify.svc")
		}
		query[2] |= 0x80
		return query
	}
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	await.Must(t, err)
	defer packets.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	await.Must(t, err)
	defer l.Close()
	go func() {
		buffer := make([]byte, 512)
		for {
			n, from, err := packets.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo(answer(buffer[:n]), from)
		}
	}()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				head := make([]byte, 2)
				if _, err := io.ReadFull(c, head); err != nil {
					return
				}
				query := make([]byte, int(head[0])<<8|int(head[1]))
				_, _ = io.ReadFull(c, query)
				_, _ = c.Write(append(head, answer(query)...))
			}()
		}
	}()
	for network, address := range map[string]string{"udp": packets.LocalAddr().String(), "tcp": l.Addr().String()} {
		c := Call{Network: network, Address: address, Hops: 1}
		if err := c.Query("server.verify.svc."); err != nil {
			t.Errorf("%s: %v", network, err)
		}
		if err := c.Query("other"); !errors.Is(err, errNoAnswer) {
			t.Errorf("%s: not an answer: %v", network, err)
		}
	}
}

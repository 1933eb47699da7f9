package flows

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/escape"
	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/flows/report"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// playsEnvoy is the environment variable that makes this test binary play Envoy, in the network of a pod whose
// namespace has REGISTRY_ONLY and STRICT. Its value is the SPIFFE ID.
const playsEnvoy = "PLAYS_ENVOY"

const identity = "spiffe://cluster.local/ns/verify/sa/pod"

// copyTest copies this test binary to a path from which other users may run it.
func copyTest(to string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	data, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

// playEnvoy listens where Envoy does. It accepts outbound connections, and answers those to the app of the mesh.
// Inbound connections need a certificate.
func playEnvoy() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	uri, err := url.Parse(os.Getenv(playsEnvoy))
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{uri}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	config := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		ClientAuth: tls.RequireAnyClientCert}
	failed := make(chan error)
	serve := func(address string, answer func(net.Conn)) {
		l, err := net.Listen("tcp", address)
		for err == nil {
			var c net.Conn
			if c, err = l.Accept(); err == nil {
				go func() { defer c.Close(); _ = c.SetDeadline(time.Now().Add(time.Minute)); answer(c) }()
			}
		}
		failed <- err
	}
	go serve(":15001", func(c net.Conn) {
		data := make([]byte, 1024)
		n, _ := c.Read(data)
		if bytes.HasPrefix(data[:n], []byte("GET / HTTP/1.1\r\nHost: 192.0.2.7:80\r\n")) {
			body := "app " + os.Getenv(playsEnvoy)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s", len(body), body)
		}
	})
	go serve(":15006", func(c net.Conn) { _ = tls.Server(c, config).Handshake() })
	go serve(":15053", func(c net.Conn) {
		data := make([]byte, 1024)
		if n, err := io.ReadAtLeast(c, data, 14); err == nil {
			data[4] |= 0x80
			_, _ = c.Write(data[:n])
		}
	})
	for _, address := range []string{"127.0.0.1:15053", "[::1]:15053"} {
		packets, err := net.ListenPacket("udp", address)
		if err != nil {
			return err
		}
		go func() {
			data := make([]byte, 1024)
			for {
				n, from, err := packets.ReadFrom(data)
				if err != nil {
					failed <- err
				}
				data[2] |= 0x80
				_, _ = packets.WriteTo(data[:n], from)
			}
		}()
	}
	go func() {
		failed <- http.ListenAndServe(":15021", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	}()
	return <-failed
}

// envoy starts the test binary as Envoy in the pod.
func (p pods) envoy(is string) {
	p.Helper()
	c := exec.Command("nsenter", "--net="+p.lab.Path, "setpriv", fmt.Sprint("--reuid=", proxyUser),
		fmt.Sprint("--regid=", proxyUser), "--clear-groups", built+"-envoy")
	c.Env = append(os.Environ(), playsEnvoy+"="+is)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	await.Must(p.T, c.Start())
	p.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
		if p.Failed() {
			p.Logf("who plays Envoy: %s", out.String())
		}
	})
}

// besideEnvoy returns the arguments of an app.
func (p pods) besideEnvoy() []string {
	return []string{"app", "--envoy", "--dns", "--ask=server.verify.svc", "--name=mesh", "--peer=" + p.peers(),
		"--mtls=192.0.2.7:80", "--identity=/ns/verify/sa/pod"}
}

// throughSidecar are the flows of each family that need packet rules.
var throughSidecar = []string{report.Outbound, report.HeldOutbound, report.DNS, report.DNSOverTCP, report.Inbound,
	report.HeldInbound}

// With Istio's sidecar, a pod proves as much as with the stand-in.
func TestEnvoy(t *testing.T) {
	t.Parallel()
	p := newPods(t)
	callers := p.peer()
	p.redirected(settings, nothing)
	p.envoy(identity)
	log, err := p.running(p.lab.Path, appUser, p.besideEnvoy()...)()
	if err != nil {
		t.Errorf("%v\n%s", err, log)
	}
	p.wants(log)
	made := map[string]int{}
	for _, r := range report.Parse(log) {
		made[r.Flow]++
		if r.Unmade != "" && !r.IsEscape() {
			t.Errorf("%s", r.Line())
		}
	}
	for _, flow := range slices.Concat(throughSidecar, []string{report.ExcludedOutbound, report.ExcludedInbound},
		attempts(true), attempts(false)) {
		families := 2
		for _, a := range escape.Attempts {
			if report.Escape+a.Name == flow && a.In(false) != a.In(true) {
				families = 1
			}
		}
		if made[flow] != families {
			t.Errorf("%s was made %d times, not %d:\n%s", flow, made[flow], families, log)
		}
	}
	if made[report.MTLS] != 1 {
		t.Errorf("mTLS was shown %d times:\n%s", made[report.MTLS], log)
	}
	for caller := range callers() {
		if strings.HasPrefix(caller, "mesh ") {
			t.Errorf("%q has reached the peer", caller)
		}
	}
}

// The results name what got around Istio's sidecar, and an identity that is not expected.
func TestEnvoyFails(t *testing.T) {
	t.Parallel()
	p := newPods(t)
	p.peer()
	p.redirected(settings, func(table redirect.Table) bool { return table.Family == redirect.IPv6 })
	p.envoy("spiffe://cluster.local/ns/other/sa/pod")
	log, err := p.running(p.lab.Path, appUser, p.besideEnvoy()...)()
	if err == nil {
		t.Error("all is well without rules for IPv6, and with another's certificate")
	}
	ill := slices.Concat(throughSidecar, attempts(true))
	for i := range ill {
		ill[i] += " IPv6"
	}
	p.wants(log, append(ill, report.Inbound+" IPv4", report.MTLS+" IPv4")...)
}

// If the sidecar does not listen in a family, the results show only that it blocks connections.
func TestEnvoyOfOneFamily(t *testing.T) {
	t.Parallel()
	p := newPods(t, testnet.IPv6)
	p.peer()
	p.redirected(settings, nothing)
	ready, _ := p.as(p.lab.Path, proxyUser, "sidecar", "--outbound-port=16001", "--inbound-port=16006", "--dns-port=16053")
	await.Must(t, ready.Start()) // the test only needs this process to be ready
	t.Cleanup(func() { _ = ready.Process.Kill(); _ = ready.Wait() })
	log, err := p.running(p.lab.Path, appUser, p.besideEnvoy()[:6]...)()
	if err != nil {
		t.Errorf("%v\n%s", err, log)
	}
	unmade := map[string]bool{}
	for _, r := range report.Parse(log) {
		if !r.IsEscape() && r.Unmade != "" {
			unmade[r.Flow] = true
		}
	}
	for _, flow := range []string{report.Outbound, report.Inbound, report.DNS, report.DNSOverTCP} {
		if !unmade[flow] {
			t.Errorf("%s is shown without a sidecar:\n%s", flow, log)
		}
	}
	p.wants(log)
}

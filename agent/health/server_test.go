package health

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/await"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
)

// quiet returns a log that only the test reads.
func quiet(out io.Writer) *logrus.Logger {
	log := logrus.New()
	log.SetOutput(out)
	return log
}

// patient returns a server that gives a client more time than a slow machine takes.
func patient(address string, log logrus.FieldLogger) *Server {
	s := NewServer(address, log)
	s.header, s.answer = time.Minute, time.Minute
	return s
}

// running returns the address of a running server on a port of loopback.
func running(t *testing.T) string {
	t.Helper()
	s := patient("127.0.0.1:0", quiet(io.Discard))
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { s.Run(ctx, Handler(prometheus.NewRegistry(), nil, nil)) })
	t.Cleanup(func() { cancel(); done.Wait() })
	await.Eventually(t, time.Minute, "the server listens", func() bool { ok, _ := s.Listening(); return ok })
	_, address := s.Listening()
	return address
}

// from dials from a loopback address. All of 127.0.0.0/8 is this host, but the server listens on 127.0.0.1, so it
// counts only that address as the node.
func from(t *testing.T, address, to string) net.Conn {
	t.Helper()
	c, err := dial(address, to)
	await.Must(t, err)
	return c
}

func dial(address, to string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}, Timeout: time.Minute}
	return d.Dial("tcp", to)
}

// get sends a request like the kubelet or Prometheus, from that address.
func get(t *testing.T, address, to, path string) (status int, err error) {
	t.Helper()
	c := from(t, address, to)
	defer c.Close()
	await.Must(t, c.SetDeadline(time.Now().Add(time.Minute)))
	// Written by hand: an http.Transport may close its connection after the test only.
	if _, err = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
		return 0, err
	}
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}

// flood opens connections from many addresses. Some send nothing, some send an incomplete request, and some have been
// served and stay open.
func flood(t *testing.T, to string, count, addresses int) (conns []net.Conn) {
	t.Helper()
	for i := range count {
		c, err := dial(fmt.Sprintf("127.0.1.%d", 1+i%addresses), to)
		if errors.Is(err, unix.ECONNRESET) {
			continue // the server has already closed it as one too many
		}
		await.Must(t, err)
		conns = append(conns, c)
		switch i % 3 {
		case 0:
			_, _ = io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n")
		case 1:
			_, _ = io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\nA: "+strings.Repeat("a", 4000))
		}
	}
	return conns
}

// files counts the open file descriptors of this process. Both ends of every connection are among them.
func files(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	await.Must(t, err)
	return len(entries)
}

// However many connections there are, from however many addresses, only few stay open, and the node's probes and a
// Prometheus are served, even from an address with as many connections as allowed.
func TestFlood(t *testing.T) {
	to := running(t)
	for _, addresses := range []int{1, 200} {
		t.Run(fmt.Sprint(addresses), func(t *testing.T) {
			before := files(t)
			conns := flood(t, to, 6000, addresses)
			defer func() {
				for _, c := range conns {
					_ = c.Close()
				}
			}()
			var own []net.Conn
			for range 200 {
				c, err := dial("127.0.0.1", to)
				if errors.Is(err, unix.ECONNRESET) {
					continue
				}
				await.Must(t, err)
				own = append(own, c)
			}
			conns = append(conns, own...)
			for range 50 {
				for address, path := range map[string]string{
					"127.0.0.1": "/healthz", "127.0.2.1": "/metrics", "127.0.1.1": "/readyz",
				} {
					if status, err := get(t, address, to, path); status != http.StatusOK {
						t.Fatalf("from %s: %d %v", address, status, err)
					}
				}
			}
			// The server has served the last probe, so it has decided about all earlier connections.
			if kept := files(t) - before - len(conns); kept > maxOwn+maxOthers {
				t.Errorf("%d connections of %d are kept, want at most %d", kept, len(conns), maxOwn+maxOthers)
			}
		})
	}
}

// While connections arrive as fast as possible, from more addresses than may have one, the node's probes are served.
func TestFloodGoesOn(t *testing.T) {
	to := running(t)
	ctx, stop := context.WithCancel(t.Context())
	var flooding sync.WaitGroup
	for worker := range 4 {
		flooding.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(10+worker), byte(1+i%250))}}
				if c, err := d.DialContext(ctx, "tcp", to); err == nil {
					_, _ = io.WriteString(c, "GET /metrics HTTP/1.1\r\n")
					_ = c.(*net.TCPConn).SetLinger(0)
					_ = c.Close()
				}
			}
		})
	}
	for range 200 {
		if status, err := get(t, "127.0.0.1", to, "/healthz"); status != http.StatusOK {
			t.Errorf("%d %v", status, err)
		}
	}
	stop()
	flooding.Wait()
}

// A connection serves one request.
func TestNoKeepAlive(t *testing.T) {
	to := running(t)
	c := from(t, "127.0.0.1", to)
	defer c.Close()
	_, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
	await.Must(t, err)
	if answer, err := io.ReadAll(c); err != nil || !strings.Contains(string(answer), "Connection: close") {
		t.Errorf("%q, %v", answer, err)
	}
}

// The server waits for a port that is in use. It logs the reason once, and reports it as long as it is true.
func TestTakenPort(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	await.Must(t, err)
	log := await.NewOutput(t)
	s := patient(other.Addr().String(), quiet(log.File))
	if ok, detail := s.Listening(); ok || detail != "starting" {
		t.Errorf("%t %q", ok, detail)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { s.Run(ctx, Handler(prometheus.NewRegistry(), nil, nil)) })
	defer func() { cancel(); done.Wait() }()
	await.Eventually(t, time.Minute, "the server says what the matter is", func() bool {
		ok, detail := s.Listening()
		return !ok && strings.Contains(detail, "address already in use")
	})
	await.Must(t, other.Close())
	await.Eventually(t, time.Minute, "the server listens", func() bool { ok, _ := s.Listening(); return ok })
	if status, err := get(t, "127.0.0.1", s.address, "/healthz"); status != http.StatusOK {
		t.Errorf("%d %v", status, err)
	}
	if n := strings.Count(log.String(), "no HTTP on "+s.address); n != 1 {
		t.Errorf("said %d times", n)
	}
}

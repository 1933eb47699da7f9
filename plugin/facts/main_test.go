package facts

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/fdleak"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// TestMain turns the test binary into an agent of another user if agentEnv is set (TestWrongPeer), and fails the tests
// if they leave file descriptors open.
func TestMain(m *testing.M) {
	if path := os.Getenv(agentEnv); path != "" {
		fakeAgent(path)
		return
	}
	os.Exit(fdleak.Run(m))
}

// question and good are a question and a valid answer to it.
var question = Request{Namespace: "shop", Name: "cart-0"}

const good = `{"version":1,"pod":{"namespace":"shop","name":"cart-0","annotations":{"a":"b"}}}` + "\n"

// socketPath returns a path in a directory like the one that Listen creates, short enough whatever the test's name is.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "facts")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "run", "agent.sock")
}

// mustListen calls Listen, and closes the listener at the end of the test.
func mustListen(t testing.TB, path string, beside ...string) net.Listener {
	t.Helper()
	l, err := Listen(path, beside...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// script is what a test's agent does with its n-th connection, counted from 0.
type script func(conn net.Conn, n int)

// play runs the script for each connection of a listener. The test waits until all have ended.
func play(t testing.TB, l net.Listener, do script) {
	var running sync.WaitGroup
	running.Go(func() {
		for n := 0; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				do(conn, n)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		running.Wait()
	})
}

// reply reads a question and writes text.
func reply(text string) script {
	return func(conn net.Conn, _ int) {
		if _, err := readLine(conn, maxRequest); err == nil {
			_, _ = io.WriteString(conn, text)
		}
	}
}

// within returns a context with that timeout.
func within(t testing.TB, timeout time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	t.Cleanup(cancel)
	return ctx
}

// wantAnswer fails the test unless Ask has returned the agent's pod.
func wantAnswer(t testing.TB, pod redirect.Pod, err error) {
	t.Helper()
	if err != nil || pod.Name != "cart-0" || pod.Annotations["a"] != "b" {
		t.Errorf("got %+v, %v", pod, err)
	}
}

// wantUnavailable fails the test unless IsUnavailable holds for err, and err names the socket, the pod and the texts.
func wantUnavailable(t testing.TB, err error, socket string, text ...string) {
	t.Helper()
	wantText(t, err, append(text, socket, `pod "shop/cart-0"`, "no answer within")...)
	if !IsUnavailable(err) {
		t.Errorf("not unavailable: %v", err)
	}
}

// wantRefused fails the test unless err is a permanent error that names the socket, the pod and the texts.
func wantRefused(t testing.TB, err error, socket string, text ...string) {
	t.Helper()
	wantText(t, err, append(text, socket, `pod "shop/cart-0"`)...)
	if IsUnavailable(err) {
		t.Errorf("unavailable: %v", err)
	}
}

func wantText(t testing.TB, err error, text ...string) {
	t.Helper()
	for _, want := range text {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want it to say %q", err, want)
		}
	}
}

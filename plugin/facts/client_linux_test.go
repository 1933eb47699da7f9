package facts

import (
	"context"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/await"
)

func TestAsk(t *testing.T) {
	path := socketPath(t)
	var connections atomic.Int32
	var got atomic.Value
	play(t, mustListen(t, path), func(conn net.Conn, _ int) {
		connections.Add(1)
		line, _ := readLine(conn, maxRequest)
		got.Store(string(line))
		_, _ = io.WriteString(conn, good)
	})
	// The context has no deadline.
	pod, err := Ask(context.Background(), path, Request{Namespace: "shop", Name: "cart-0", UID: "u"})
	wantAnswer(t, pod, err)
	if want := `{"version":1,"op":"pod","namespace":"shop","name":"cart-0","uid":"u"}`; got.Load() != want ||
		connections.Load() != 1 {
		t.Errorf("asked %s in %d connections, want %s in one", got.Load(), connections.Load(), want)
	}
}

// Ask does not repeat the question after an invalid answer: the next answer would be invalid too.
func TestAnswersRefused(t *testing.T) {
	for name, test := range map[string]struct{ answer, want string }{
		"garbage":   {"\x00\xffgarbage\n", "invalid character"},
		"html":      {"HTTP/1.1 400 Bad Request\r\n", "invalid character"},
		"empty":     {"\n", "unexpected end of JSON input"},
		"two lines": {good + good, "there is more behind its line"},
		"two on it": {strings.TrimSuffix(good, "\n") + good, "after top-level value"},
		"giant":     {strings.Repeat("x", maxResponse+1), "longer than 4194304 bytes"},
		"version":   {`{"version":2,"pod":7}` + "\n", "it has protocol version 2, this program speaks version 1"},
		"neither":   {`{"version":1}` + "\n", "either a pod or an error"},
		"other":     {strings.Replace(good, "cart-0", "cart-1", 1), `another pod, "shop/cart-1"`},
		"otherns":   {strings.Replace(good, "shop", "bank", 1), `another pod, "bank/cart-0"`},
	} {
		t.Run(name, func(t *testing.T) {
			path := socketPath(t)
			var connections atomic.Int32
			play(t, mustListen(t, path), func(conn net.Conn, n int) {
				connections.Add(1)
				reply(test.answer)(conn, n)
			})
			_, err := Ask(within(t, time.Minute), path, question)
			wantRefused(t, err, path, test.want)
			if _, ok := AsAnswer(err); ok || connections.Load() != 1 || IsVersion(err) != (name == "version") {
				t.Errorf("wrong class, or asked %d times: %v", connections.Load(), err)
			}
		})
	}
}

func TestErrorAnswer(t *testing.T) {
	path := socketPath(t)
	play(t, mustListen(t, path), reply(string(fixture(t, "response-error-v1.json"))+"\n"))
	_, err := Ask(within(t, time.Minute), path, question)
	wantRefused(t, err, path, "the API server does not answer (code 11)")
	if answer, ok := AsAnswer(err); !ok || *answer != *frozen.error.Error {
		t.Errorf("answer %+v", answer)
	}
}

// Ask tries again if the agent is not there, or goes away before it has answered. When the time is over, the error says
// what was wrong.
func TestNotThere(t *testing.T) {
	for name, test := range map[string]struct {
		make func(t *testing.T, path string)
		want []string
	}{
		"no directory": {func(*testing.T, string) {}, []string{"no such file or directory", "check that the agent runs"}},
		"no socket":    {makeDir, []string{"connect: no such file or directory", "check that the agent runs"}},
		"stale socket": {func(t *testing.T, path string) { _ = mustListen(t, path).Close() },
			[]string{"connection refused", "stopped or keeps restarting"}},
		"plain file": {func(t *testing.T, path string) {
			makeDir(t, path)
			await.Must(t, os.WriteFile(path, nil, 0o600))
		}, []string{"connection refused"}},
		"hangs up":       {hangUp(""), []string{"the agent hung up"}},
		"hangs up early": {hangUp(good[:20]), []string{"unexpected EOF", "the agent hung up"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := socketPath(t)
			test.make(t, path)
			_, err := exchange(within(t, time.Minute), path, []byte("{}\n"))
			if !transient(err) {
				t.Fatalf("not worth another try: %v", err)
			}
			wantText(t, &unavailableError{cause: err}, test.want...)
		})
	}
}

// Ask keeps trying until the time is over, and does not give up before.
func TestTimeIsOver(t *testing.T) {
	path := socketPath(t)
	start := time.Now()
	_, err := Ask(within(t, 150*time.Millisecond), path, question)
	wantUnavailable(t, err, path, "no such file or directory", "check that the agent runs")
	if took := time.Since(start); took < 100*time.Millisecond {
		t.Errorf("gave up after %v", took)
	}
}

// lapse is a context whose time is over when the test's agent says so.
type lapse struct {
	context.Context
	over chan struct{}
}

func (l lapse) Done() <-chan struct{} { return l.over }
func (l lapse) Err() error {
	select {
	case <-l.over:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// Ask does not repeat the question to an agent that has read it and does not answer, or answers too slowly.
func TestNoAnswer(t *testing.T) {
	for name, said := range map[string]string{"silent": "", "slow loris": good[:20]} {
		t.Run(name, func(t *testing.T) {
			path, ctx, connections := socketPath(t), lapse{within(t, time.Minute), make(chan struct{})}, atomic.Int32{}
			play(t, mustListen(t, path), func(conn net.Conn, n int) {
				connections.Add(1)
				reply(said)(conn, n)
				close(ctx.over)
				_, _ = conn.Read(make([]byte, 1)) // returns when the caller closes the connection
			})
			_, err := Ask(ctx, path, question)
			wantUnavailable(t, err, path, "reading the answer: i/o timeout", "the agent took the question")
			if n := connections.Load(); n != 1 {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

func makeDir(t *testing.T, path string) {
	t.Helper()
	_ = mustListen(t, path).Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// hangUp is an agent that closes the connection after it has sent the text.
func hangUp(said string) func(*testing.T, string) {
	return func(t *testing.T, path string) { play(t, mustListen(t, path), reply(said)) }
}

// drip is an agent that sends one byte at a time.
func drip(pause time.Duration) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		done := make(chan struct{})
		play(t, mustListen(t, path), func(conn net.Conn, _ int) {
			for i := range good {
				select {
				case <-done:
					return
				case <-time.After(pause):
				}
				_, _ = io.WriteString(conn, good[i:i+1])
			}
		})
		t.Cleanup(func() { close(done) })
	}
}

// An answer may come byte by byte, if all of it comes in time.
func TestSlowButInTime(t *testing.T) {
	path := socketPath(t)
	drip(time.Millisecond)(t, path)
	pod, err := Ask(within(t, time.Minute), path, question)
	wantAnswer(t, pod, err)
}

func TestAgentAppearsLater(t *testing.T) {
	for name, prepare := range map[string]func(*testing.T, string){
		"no directory": func(*testing.T, string) {},
		"no socket":    makeDir,
		"stale socket": func(t *testing.T, path string) { _ = mustListen(t, path).Close() },
	} {
		t.Run(name, func(t *testing.T) {
			path := socketPath(t)
			prepare(t, path)
			ctx := within(t, time.Minute)
			start := time.Now()
			appeared := later(200*time.Millisecond, func() { play(t, mustListen(t, path), reply(good)) })
			pod, err := Ask(ctx, path, question)
			<-appeared
			wantAnswer(t, pod, err)
			if took := time.Since(start); took < 200*time.Millisecond {
				t.Errorf("took %v", took)
			}
		})
	}
}

// later runs f after the pause. It closes the channel when f has returned.
func later(pause time.Duration, f func()) <-chan struct{} {
	done := make(chan struct{})
	time.AfterFunc(pause, func() {
		defer close(done)
		f()
	})
	return done
}

// Ask succeeds with an agent that dies at every point of an exchange and restarts each time.
func TestAgentDiesAndComesBack(t *testing.T) {
	path := socketPath(t)
	deaths := []script{
		func(net.Conn, int) {}, // the question stays unread, so the kernel resets the connection
		reply(""),
		reply(good[:1]),
		reply(good[:len(good)-1]),
	}
	var connections atomic.Int32
	play(t, mustListen(t, path), func(conn net.Conn, n int) {
		connections.Add(1)
		if n < len(deaths) {
			deaths[n](conn, n)
			return
		}
		reply(good)(conn, n)
	})
	pod, err := Ask(within(t, time.Minute), path, question)
	wantAnswer(t, pod, err)
	if n := connections.Load(); int(n) != len(deaths)+1 {
		t.Errorf("%d connections", n)
	}
}

// If a listener's queue is full, TCP waits, but connect(2) on a unix socket returns EAGAIN, which is not a timeout.
func TestFullQueue(t *testing.T) {
	path := socketPath(t)
	l := mustListen(t, path).(*net.UnixListener)
	raw, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { _ = syscall.Listen(int(fd), 0) }); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		conn, err := net.Dial("unix", path)
		if err == nil {
			defer conn.Close()
		}
	}
	_, err = Ask(within(t, 50*time.Millisecond), path, question)
	wantUnavailable(t, err, path, "resource temporarily unavailable", "too many callers are waiting")
	served := later(50*time.Millisecond, func() { play(t, l, reply(good)) })
	pod, err := Ask(within(t, time.Minute), path, question)
	<-served
	wantAnswer(t, pod, err)
}

func TestContext(t *testing.T) {
	path := socketPath(t)
	drip(time.Hour)(t, path)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Ask(ctx, path, question)
	wantUnavailable(t, err, path, "the caller gave up")

	ctx, cancel = context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err = Ask(ctx, path, question)
	wantUnavailable(t, err, path, "context canceled")

	ctx, cancel = context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancel()
	_, err = Ask(ctx, path, question)
	wantUnavailable(t, err, path, "i/o timeout")
}

func BenchmarkAsk(b *testing.B) {
	path := socketPath(b)
	play(b, mustListen(b, path), reply(good))
	ctx := within(b, time.Minute)
	for b.Loop() {
		if _, err := Ask(ctx, path, question); err != nil {
			b.Fatal(err)
		}
	}
}

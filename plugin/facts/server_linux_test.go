package facts

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// patient is a limit that a busy machine does not exceed.
const patient = time.Minute

// serve runs s on l until the test ends. It fails the test if s returns an error.
func serve(t testing.TB, s server, l net.Listener) {
	done := make(chan error, 1)
	go func() { done <- s.serve(l) }()
	t.Cleanup(func() {
		_ = l.Close()
		if err := <-done; err != nil {
			t.Errorf("serving: %v", err)
		}
	})
}

// echo answers with a pod that has the values of the question.
func echo(_ context.Context, req Request) Response {
	return Response{Pod: &redirect.Pod{Namespace: req.Namespace, Name: req.Name, UID: req.UID,
		Annotations: map[string]string{"a": "b"}}}
}

func TestServe(t *testing.T) {
	path := socketPath(t)
	l := mustListen(t, path)
	done := make(chan error)
	go func() { done <- Serve(l, echo) }()
	for range 3 {
		pod, err := Ask(within(t, time.Minute), path, question)
		wantAnswer(t, pod, err)
	}
	_ = l.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// say sends text unchanged and returns the error of the answer.
func say(t *testing.T, path, text string) *Error {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, text)
	line, err := readLine(conn, maxResponse)
	if err != nil {
		t.Fatalf("%.40q: %v", text, err)
	}
	r, err := parseResponse(line)
	if err != nil || r.Error == nil {
		t.Fatalf("%.40q: answered %s, %v", text, line, err)
	}
	return r.Error
}

// endless is a line that never ends.
const endless = `{"version":1,`

func TestServeRefuses(t *testing.T) {
	var asked atomic.Int32
	listening := func(limit time.Duration) (path string) {
		path = socketPath(t)
		serve(t, server{func(context.Context, Request) Response { asked.Add(1); return Response{} }, limit},
			mustListen(t, path))
		return path
	}
	path, hasty := listening(patient), listening(100*time.Millisecond)
	for _, test := range []struct {
		question string
		code     uint
		want     string
	}{
		{"garbage\n", CodeDecode, `reading the question "garbage": invalid character`},
		{"{}\n", CodeTryLater, "it has no protocol version, this program speaks version 1"},
		{string(fixture(t, "request-v2.json")) + "\n", CodeTryLater,
			"it has protocol version 2, this program speaks version 1"},
		{`{"version":1,"op":"node","namespace":"a","name":"b"}` + "\n", CodeTryLater, `unknown operation "node"`},
		{`{"version":1,"op":"pod","namespace":"a"}` + "\n", CodeDecode, "it has to name the pod"},
		{strings.Repeat("x", maxRequest+1), CodeDecode, "longer than 65536 bytes"},
		{"a\nb\n", CodeDecode, "more behind its line"},
		{endless, CodeDecode, "i/o timeout"},
	} {
		at := path
		if test.question == endless {
			at = hasty
		}
		if got := say(t, at, test.question); got.Code != test.code || !strings.Contains(got.Message, test.want) {
			t.Errorf("%.40q: %+v, want code %d, %s", test.question, got, test.code, test.want)
		}
	}
	if asked.Load() != 0 {
		t.Errorf("%d of them reached the agent", asked.Load())
	}
}

// The deadline is for the caller's whole line, not for each byte.
func TestServeSlowLoris(t *testing.T) {
	path := socketPath(t)
	serve(t, server{echo, 100 * time.Millisecond}, mustListen(t, path))
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	await.Eventually(t, time.Minute, "it does not listen any more", func() bool {
		_, err := io.WriteString(conn, "x")
		return err != nil
	})
}

func TestServeAnswerTooLarge(t *testing.T) {
	path := socketPath(t)
	serve(t, server{func(_ context.Context, req Request) Response {
		r := echo(context.Background(), req)
		r.Pod.UID = strings.Repeat("u", maxResponse)
		return r
	}, patient}, mustListen(t, path))
	_, err := Ask(within(t, time.Minute), path, question)
	wantRefused(t, err, path, "more than 4194304")
	if answer, ok := AsAnswer(err); !ok || answer.Code != CodeInternal {
		t.Errorf("answer %+v", answer)
	}
}

// An answer just below the limit is sent, although the socket's buffer is smaller.
func TestServeLargestAnswer(t *testing.T) {
	path := socketPath(t)
	serve(t, server{func(_ context.Context, req Request) Response {
		r := echo(context.Background(), req)
		line, _ := encode(Response{Version: Version, Pod: r.Pod})
		r.Pod.Annotations["big"] = strings.Repeat("x", maxResponse-len(line)-len(`,"big":""`))
		return r
	}, patient}, mustListen(t, path))
	pod, err := Ask(within(t, time.Minute), path, question)
	wantAnswer(t, pod, err)
}

// Serve answers a fixed number of callers at once, and takes one more whenever an answer is sent. In every round the
// number of calls so far is exact.
func TestServeIsBounded(t *testing.T) {
	path := socketPath(t)
	var entered atomic.Int32
	answer, answered := make(chan struct{}), make(chan struct{}, 2*maxConcurrent)
	serve(t, server{func(ctx context.Context, req Request) Response {
		entered.Add(1)
		<-answer
		return echo(ctx, req)
	}, patient}, mustListen(t, path))
	defer close(answer)
	ctx := within(t, time.Hour) // for all rounds
	var callers sync.WaitGroup
	t.Cleanup(callers.Wait)
	for range 2 * maxConcurrent {
		callers.Go(func() {
			pod, err := Ask(ctx, path, question)
			wantAnswer(t, pod, err)
			answered <- struct{}{}
		})
	}
	for round := range int32(maxConcurrent) {
		await.Eventually(t, time.Minute, "all places are taken", func() bool { return entered.Load() >= maxConcurrent+round })
		if n := entered.Load() - round; n != maxConcurrent {
			t.Fatalf("%d at once, want %d", n, maxConcurrent)
		}
		answer <- struct{}{}
		<-answered
	}
	for range maxConcurrent {
		answer <- struct{}{}
		<-answered
	}
}

// After the listener is closed, answers in progress see that their context has ended, and are still sent.
func TestServeEnds(t *testing.T) {
	path := socketPath(t)
	l := mustListen(t, path)
	begun := make(chan struct{})
	done := make(chan error)
	go func() {
		done <- Serve(l, func(ctx context.Context, req Request) Response {
			close(begun)
			<-ctx.Done()
			return echo(ctx, req)
		})
	}()
	go func() {
		<-begun
		_ = l.Close()
	}()
	pod, err := Ask(within(t, time.Minute), path, question)
	wantAnswer(t, pod, err)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A question that fails because its agent ends is answered by the next one.
func TestServeEndsUnanswered(t *testing.T) {
	path := socketPath(t)
	l := mustListen(t, path)
	begun, done, next := make(chan struct{}), make(chan error), make(chan struct{})
	go func() {
		done <- Serve(l, func(ctx context.Context, _ Request) Response {
			close(begun)
			<-ctx.Done()
			return refusal(CodeTryLater, ctx.Err())
		})
	}()
	go func() {
		defer close(next)
		<-begun
		_ = l.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		serve(t, server{echo, lineTimeout}, mustListen(t, path))
	}()
	pod, err := Ask(within(t, time.Minute), path, question)
	<-next
	wantAnswer(t, pod, err)
}

// flaky is a listener whose first calls fail for lack of something, and whose last one fails for good.
type flaky struct {
	net.Listener
	errs []error
}

func (f *flaky) Accept() (net.Conn, error) {
	err := f.errs[0]
	f.errs = f.errs[1:]
	return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", err)}
}

func TestServeAcceptErrors(t *testing.T) {
	broken := errors.New("broken")
	f := &flaky{errs: []error{syscall.EMFILE, syscall.ENFILE, broken}}
	if err := Serve(f, echo); !errors.Is(err, broken) || len(f.errs) != 0 {
		t.Errorf("%v, %d errors not seen", err, len(f.errs))
	}
}

// pipes is a listener whose connections have no peer credentials.
type pipes struct{ conns chan net.Conn }

func (p pipes) Accept() (net.Conn, error) {
	if conn, ok := <-p.conns; ok {
		return conn, nil
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error   { close(p.conns); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{} }

func TestServeNeedsPeer(t *testing.T) {
	here, there := net.Pipe()
	p := pipes{make(chan net.Conn, 1)}
	p.conns <- there
	serve(t, server{echo, patient}, p)
	line, err := readLine(here, maxResponse)
	if err != nil || !strings.Contains(string(line), "does not tell its peer") {
		t.Errorf("%s, %v", line, err)
	}
}

package facts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/istio-pod-network/controller/internal/excerpt"
)

// Limits of Serve.
const (
	maxConcurrent = 64               // questions that are answered at once; others wait in the listener's queue
	lineTimeout   = 5 * time.Second  // to read a question, and to write an answer
	answerTimeout = 10 * time.Second // to find an answer
)

// Serve answers the questions that come to l, one per connection, until l is closed. It then returns nil, after the
// answers in progress are sent. Errors are not sent then, so that the caller asks the next agent. Serve refuses callers
// that are not root, other versions, unknown operations and invalid JSON.
//
// Serve calls answer in up to 64 goroutines at once. answer should respect its context, which ends after 10 s or when l
// is closed. It may leave the response's Version zero.
func Serve(l net.Listener, answer func(context.Context, Request) Response) error {
	return server{answer, lineTimeout}.serve(l)
}

// server is what Serve needs, with the one limit that a test changes.
type server struct {
	answer      func(context.Context, Request) Response
	lineTimeout time.Duration
}

// serve accepts connections until the listener is closed.
func (s server) serve(l net.Listener) error {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	slots := make(chan struct{}, maxConcurrent)
	for {
		slots <- struct{}{}
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			if !temporary(err) {
				return fmt.Errorf("accepting a question: %w", err)
			}
			time.Sleep(firstPause)
			<-slots
			continue
		}
		running.Go(func() {
			defer func() { <-slots }()
			defer conn.Close()
			s.converse(ctx, conn)
		})
	}
}

// converse reads one question and writes its answer. It reports failures to the caller alone, if it can, because
// nothing has to be repaired here.
func (s server) converse(ctx context.Context, conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(s.lineTimeout))
	response := s.respond(ctx, conn)
	if response.Error != nil && ctx.Err() != nil { // it may have failed because this agent ends
		return
	}
	line, err := encode(response)
	if err == nil && len(line) > maxResponse {
		err = fmt.Errorf("the answer has %d bytes, more than %d", len(line), maxResponse)
	}
	if err != nil {
		line, _ = encode(refusal(CodeInternal, err))
	}
	_ = conn.SetDeadline(time.Now().Add(s.lineTimeout)) // a new deadline: answering has taken time of its own
	_, _ = conn.Write(line)
}

// respond reads one question and returns its answer.
func (s server) respond(ctx context.Context, conn net.Conn) Response {
	if err := trustPeer(conn); err != nil {
		return refusal(CodeInternal, fmt.Errorf("refusing the caller: %w", err))
	}
	line, err := readLine(conn, maxRequest)
	if err != nil {
		return refusal(CodeDecode, fmt.Errorf("reading the question: %w", err))
	}
	req, err := parseRequest(line)
	switch {
	case IsVersion(err):
		return refusal(CodeTryLater, fmt.Errorf("reading the question: %w", err))
	case err != nil:
		return refusal(CodeDecode, fmt.Errorf("reading the question %s: %w", excerpt.Quote(string(line)), err))
	case req.Op != OpPod:
		return refusal(CodeTryLater, fmt.Errorf("unknown operation %s: this program knows %q", excerpt.Quote(req.Op), OpPod))
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	response := s.answer(ctx, req)
	if response.Version == 0 {
		response.Version = Version
	}
	return response
}

// refusal returns an error as an answer.
func refusal(code uint, err error) Response {
	return Response{Version: Version, Error: &Error{Code: code, Message: err.Error()}}
}

// temporary reports whether a later accept may succeed: the process or the node has run out of something.
func temporary(err error) bool {
	for _, target := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

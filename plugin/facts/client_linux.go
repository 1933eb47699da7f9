package facts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/istio-pod-network/controller/internal/excerpt"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// defaultTimeout is how long Ask waits if its context has no deadline.
const defaultTimeout = 8 * time.Second

// Pauses between two attempts to reach an agent. They are short enough to find a restarted agent soon, and long enough
// that a hundred waiting plugins do not keep the node busy.
const (
	firstPause = 5 * time.Millisecond
	maxPause   = 100 * time.Millisecond
)

// Ask asks the agent that listens on the socket about the pod in req, and returns what it knows. The deadline of ctx,
// or 8 s if it has none, covers everything. Until then Ask tries again if the agent is not there, or goes away before
// it has answered. IsUnavailable, AsAnswer and IsVersion tell its errors apart.
//
// The answer has the requested namespace and name. Its UID is not compared, because a mirror pod's UID differs from
// that of the static pod that the kubelet runs. The agent uses Request.UID to tell pods with the same name apart.
func Ask(ctx context.Context, socket string, req Request) (redirect.Pod, error) {
	pod, err := ask(ctx, socket, req)
	if err != nil {
		return redirect.Pod{}, fmt.Errorf("asking the agent on socket %q about pod \"%s/%s\": %w", socket, req.Namespace,
			req.Name, err)
	}
	return pod, nil
}

// ask does the work of Ask, without the context that Ask adds to errors.
func ask(ctx context.Context, socket string, req Request) (redirect.Pod, error) {
	if err := checkPath(socket); err != nil {
		return redirect.Pod{}, err
	}
	if req.Version == 0 {
		req.Version = Version
	}
	if req.Op == "" {
		req.Op = OpPod
	}
	question, err := encode(req)
	if err != nil {
		return redirect.Pod{}, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultTimeout)
		defer cancel()
	}
	line, err := insist(ctx, socket, question)
	if err != nil {
		return redirect.Pod{}, err
	}
	return accept(line, req)
}

// insist tries until there is an answer, an error that another attempt would not cure, or no time left.
func insist(ctx context.Context, socket string, question []byte) ([]byte, error) {
	start := time.Now()
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		line, err := exchange(ctx, socket, question)
		if err == nil {
			return line, nil
		}
		slow := errors.Is(err, os.ErrDeadlineExceeded)
		if !slow && !transient(err) {
			return nil, err
		}
		if slow || !wait(ctx, pause) {
			if errors.Is(ctx.Err(), context.Canceled) {
				err = ctx.Err()
			}
			return nil, &unavailableError{cause: err, after: time.Since(start)}
		}
	}
}

// exchange opens one connection, sends the question and returns the line of the answer.
func exchange(ctx context.Context, socket string, question []byte) ([]byte, error) {
	if err := trustDir(filepath.Dir(socket)); err != nil {
		return nil, err
	}
	// Connecting to a unix socket never waits, so it needs no deadline. DialContext would only cost more.
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, plain(err)
	}
	defer func() { _ = conn.Close() }()
	if err := trustPeer(conn); err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	// on a cancelled context; it needs no goroutine until then
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(question); err != nil {
		return nil, fmt.Errorf("sending the question: %w", plain(err))
	}
	line, err := readLine(conn, maxResponse)
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", plain(err))
	}
	return line, nil
}

// accept returns the pod in an answer, if it is the requested one.
func accept(line []byte, req Request) (redirect.Pod, error) {
	r, err := parseResponse(line)
	if err != nil {
		return redirect.Pod{}, fmt.Errorf("reading the answer %s: %w", excerpt.Quote(string(line)), err)
	}
	if r.Error != nil {
		return redirect.Pod{}, r.Error
	}
	if r.Pod.Namespace != req.Namespace || r.Pod.Name != req.Name {
		return redirect.Pod{}, fmt.Errorf("the answer is about another pod, \"%s/%s\"", r.Pod.Namespace, r.Pod.Name)
	}
	return *r.Pod, nil
}

// plain removes the addresses from a connection's error, because Ask names the socket.
func plain(err error) error {
	var e *net.OpError
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}

// wait sleeps for pause and reports whether there is still time to try again.
func wait(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

package facts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// IsUnavailable reports whether err says that the agent did not answer in time: its socket is missing or refuses
// connections, the agent hung up, or it is too slow. Any other error of Ask is permanent: the agent's own error
// (AsAnswer), or an agent or answer that is not trusted. To a runtime both are CNI error 11.
func IsUnavailable(err error) bool {
	var u *unavailableError
	return errors.As(err, &u)
}

// AsAnswer returns the error that the agent answered with, if err is one.
func AsAnswer(err error) (*Error, bool) {
	var answer *Error
	ok := errors.As(err, &answer)
	return answer, ok
}

// IsVersion reports whether err says that the peer uses a version that this program does not know. The text names both.
func IsVersion(err error) bool {
	var v *versionError
	return errors.As(err, &v)
}

// versionError is a message with a version other than ours.
type versionError struct{ peer int }

// Error names both versions.
func (e *versionError) Error() string {
	if e.peer == 0 {
		return fmt.Sprintf("it has no protocol version, this program speaks version %d", Version)
	}
	return fmt.Sprintf("it has protocol version %d, this program speaks version %d", e.peer, Version)
}

// unavailableError is the last failure before the time was over.
type unavailableError struct {
	cause error
	after time.Duration
}

// Error names the last failure and what to check.
func (e *unavailableError) Error() string {
	return fmt.Sprintf("no answer within %v: %v; %s", e.after.Round(time.Millisecond), e.cause, hint(e.cause))
}

// Unwrap returns the last failure.
func (e *unavailableError) Unwrap() error { return e.cause }

// hint says what to check.
func hint(cause error) string {
	switch {
	case errors.Is(cause, context.Canceled):
		return "the caller gave up"
	case errors.Is(cause, syscall.ENOENT):
		return "check that the agent runs on this node and has the same socket path"
	case errors.Is(cause, syscall.ECONNREFUSED):
		return "nobody listens on the socket: check whether the agent of this node has stopped or keeps restarting"
	case errors.Is(cause, syscall.EAGAIN):
		return "too many callers are waiting: check whether the agent of this node hangs"
	case errors.Is(cause, os.ErrDeadlineExceeded):
		return "the agent took the question: check its log, and whether it reaches the API server"
	default:
		return "the agent hung up: check its log for a crash"
	}
}

// transient reports whether another attempt may succeed: the agent restarts (the socket is missing or refuses
// connections, or the agent hung up before it sent the whole answer), or its queue is full (EAGAIN, where TCP would
// wait).
func transient(err error) bool {
	for _, target := range []error{
		syscall.ENOENT, syscall.ECONNREFUSED, syscall.EAGAIN, syscall.ECONNRESET, syscall.EPIPE, io.ErrUnexpectedEOF,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

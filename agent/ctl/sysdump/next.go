package sysdump

import (
	"context"
	"errors"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
)

// helped is an error with what to do about it.
type helped struct {
	error
	next string
}

func (h *helped) Unwrap() error { return h.error }

// What to do about errors.
const (
	slow      = "See whether the agent runs (istio-pod-networkctl status), and make another archive."
	refused   = "Make another archive with the rights that istio-pod-networkctl sysdump --help names."
	otherwise = "Make another archive once the reason is gone."
)

// nextOf returns what to do about something that could not be read.
func nextOf(err error) string {
	var h *helped
	switch {
	case errors.As(err, &h):
		return h.next
	case cluster.CannotAnswer(err):
		return cluster.NextCannotAnswer
	case errors.Is(err, context.DeadlineExceeded):
		return slow
	case cluster.LacksRight(err):
		return refused
	}
	return otherwise
}

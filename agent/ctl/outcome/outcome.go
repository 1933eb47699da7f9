// Package outcome has the exit statuses of the operator's tool, and the errors that lead to them.
package outcome

import (
	"errors"
	"fmt"
)

// Exit statuses.
const (
	Well     = 0 // everything was asked and is well
	NotWell  = 1 // something that was asked is not well
	Misused  = 2 // the command line, or a file that it names, is invalid
	NotAsked = 3 // something does not answer, or the user lacks the right to ask it
)

// ErrNotWell says that something is not well. The command has printed what it is.
var ErrNotWell = errors.New("not well")

// failure is an error with its exit status.
type failure struct {
	error
	status int
}

func (f *failure) Unwrap() error { return f.error }

// Misuse marks err as an error in the user's input, with exit status Misused. It returns nil for nil.
func Misuse(err error) error { return as(err, Misused) }

// Misusef is Misuse of a formatted error.
func Misusef(format string, args ...any) error { return Misuse(fmt.Errorf(format, args...)) }

// Unasked marks err as an error of something that could not be asked, with exit status NotAsked. It returns nil for
// nil.
func Unasked(err error) error { return as(err, NotAsked) }

func as(err error, status int) error {
	if err == nil {
		return nil
	}
	return &failure{err, status}
}

// StatusOf returns the exit status of a command that has ended with err. An unmarked error is about the command line,
// because those are cobra's.
func StatusOf(err error) int {
	var f *failure
	switch {
	case err == nil:
		return Well
	case errors.Is(err, ErrNotWell):
		return NotWell
	case errors.As(err, &f):
		return f.status
	}
	return Misused
}

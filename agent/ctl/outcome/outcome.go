// Package outcome has the exit statuses of the operator's tool, and the errors that lead to them.
package outcome

import (
	"errors"
	"fmt"
)

// Exit statuses.
const (
	Well     = 0 // asked, and all that was looked at is well
	NotWell  = 1 // asked, and something is not
	Misused  = 2 // the command line, or a file that it names, cannot be used
	NotAsked = 3 // what was to be asked does not answer, or does not let this user ask
)

// ErrNotWell says that something is not well; what it is has been printed.
var ErrNotWell = errors.New("not well")

// failure is an error with its exit status.
type failure struct {
	error
	status int
}

func (f *failure) Unwrap() error { return f.error }

// Misuse is the error about what the user has given; nil for nil.
func Misuse(err error) error { return as(err, Misused) }

// Misusef is Misuse of a new error.
func Misusef(format string, args ...any) error { return Misuse(fmt.Errorf(format, args...)) }

// Unasked is the error of something that could not be asked; nil for nil.
func Unasked(err error) error { return as(err, NotAsked) }

func as(err error, status int) error {
	if err == nil {
		return nil
	}
	return &failure{err, status}
}

// StatusOf returns the exit status of a command that has ended with err. An error that says nothing else is about the
// command line: cobra makes those.
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

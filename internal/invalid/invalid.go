// Package invalid has the error for an invalid value. It names the setting, the value, what is wrong with it, and what
// is valid, always in this form:
//
//	agentTimeout: invalid value "1h": longer than a minute; valid: a duration from 1ms to 1m, such as 8s
package invalid

import (
	"errors"
	"fmt"

	"github.com/istio-pod-network/controller/internal/excerpt"
)

// Error is the error for an invalid value.
type Error struct {
	Key     string // the setting as a person writes it: agentTimeout, --patrol, annotation example.com/key
	Value   string // the value as it is shown: JSON, or quoted
	Problem string // "" if Valid says enough
	Valid   string
}

// Text returns the error for a value that is text.
func Text(key, value, problem, valid string) *Error {
	return &Error{key, excerpt.Quote(value), problem, valid}
}

// JSON returns the error for a JSON value of the wrong type.
func JSON(key, value, problem, valid string) *Error {
	return &Error{key, excerpt.Value(value), problem, valid}
}

// Error returns the error in one line.
func (e *Error) Error() string {
	problem := e.Problem
	if problem != "" {
		problem = ": " + problem
	}
	return fmt.Sprintf("%s: invalid value %s%s; valid: %s", e.Key, e.Value, problem, e.Valid)
}

// Is reports whether err is an *Error, or wraps one.
func Is(err error) bool { return errors.As(err, new(*Error)) }

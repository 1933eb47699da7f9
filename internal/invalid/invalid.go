// Package invalid has the one error for a value that cannot be used. It says which setting has the value, what is wrong
// with it and what is valid, always in these words:
//
//	agentTimeout: invalid value "1h": longer than a minute; valid: a duration from 1ms to 1m, such as 8s
package invalid

import (
	"errors"
	"fmt"

	"github.com/istio-pod-network/controller/internal/excerpt"
)

// Error is the error.
type Error struct {
	Key     string // of the setting as a person writes it: agentTimeout, --patrol, annotation example.com/key
	Value   string // as it is shown: JSON, or in quotes
	Problem string // "" where what is valid says enough
	Valid   string
}

// Text is the error about a value that is text.
func Text(key, value, problem, valid string) *Error {
	return &Error{key, excerpt.Quote(value), problem, valid}
}

// JSON is the error about a value that is JSON of another kind than the setting's.
func JSON(key, value, problem, valid string) *Error {
	return &Error{key, excerpt.Value(value), problem, valid}
}

// Error says it in one line.
func (e *Error) Error() string {
	problem := e.Problem
	if problem != "" {
		problem = ": " + problem
	}
	return fmt.Sprintf("%s: invalid value %s%s; valid: %s", e.Key, e.Value, problem, e.Valid)
}

// Is reports whether err is such an error, or wraps one.
func Is(err error) bool { return errors.As(err, new(*Error)) }

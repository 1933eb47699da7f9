package redirect

import (
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// valueError says which setting has which invalid value, and what would be valid.
type valueError struct {
	key, value, problem, valid string
}

// shownValue bounds how much of a value an error repeats, in bytes: an annotation may hold 256 KiB.
const shownValue = 120

func (e *valueError) Error() string { return e.say(strconv.Quote(e.shown())) }

// shown is the value, or the start of a long one.
func (e *valueError) shown() string {
	if len(e.value) <= shownValue {
		return e.value
	}
	cut := shownValue
	for cut > 0 && !utf8.RuneStart(e.value[cut]) {
		cut--
	}
	return e.value[:cut] + "…"
}

func (e *valueError) say(value string) string {
	return fmt.Sprintf("%s: invalid value %s: %s; valid: %s", e.key, value, e.problem, e.valid)
}

// kindError is a valueError whose value is JSON of another kind than the key has, which needs no quotes of ours.
type kindError struct{ valueError }

func (e *kindError) Error() string { return e.say(e.shown()) }

// IsInvalid reports whether err says that a setting of the pod or of the configuration has an invalid value.
func IsInvalid(err error) bool {
	return errors.As(err, new(*valueError)) || errors.As(err, new(*kindError)) || errors.As(err, new(*SharedUserError))
}

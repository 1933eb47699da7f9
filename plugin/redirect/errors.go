package redirect

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// valueError says which setting has which invalid value, and what would be valid.
type valueError struct {
	key, value, problem, valid string
}

// shownValue bounds how much of a value an error repeats, in bytes: an annotation may hold 256 KiB.
const shownValue = 120

func (e *valueError) Error() string {
	value := e.value
	if len(value) > shownValue {
		cut := shownValue
		for cut > 0 && !utf8.RuneStart(value[cut]) {
			cut--
		}
		value = value[:cut] + "…"
	}
	return fmt.Sprintf("%s: invalid value %q: %s; valid: %s", e.key, value, e.problem, e.valid)
}

// IsInvalid reports whether err says that a setting of the pod or of the configuration has an invalid value.
func IsInvalid(err error) bool {
	var target *valueError
	return errors.As(err, &target)
}

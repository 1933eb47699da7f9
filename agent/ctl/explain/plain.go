package explain

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// inWords describes a field with a value of a wrong type in terms of a manifest, not of Go.
func inWords(err error) error {
	wrong := new(json.UnmarshalTypeError)
	if !errors.As(err, &wrong) {
		return err
	}
	its, _, _ := strings.Cut(wrong.Value, " ") // a number may follow
	said := map[string]string{"array": "a list", "bool": "true or false", "number": "a number", "object": "an object",
		"string": "a text"}[its]
	if said == "" {
		return err
	}
	if wrong.Field == "" {
		return fmt.Errorf("%s is there; valid: an object with apiVersion and kind", said)
	}
	return fmt.Errorf("%s has %s; valid: %s", wrong.Field, said, meant(wrong.Type))
}

// meant returns what a field accepts.
func meant(t reflect.Type) string {
	if t == nil {
		return "another type"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return meant(t.Elem())
	case reflect.String:
		return "a text, in quotes if it looks like something else"
	case reflect.Bool:
		return "true or false, without quotes"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "an object"
	}
	return "a number, without quotes"
}

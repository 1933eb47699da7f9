package explain

import (
	"strings"
	"testing"
)

// The error about missing quotes or a missing dash names the field and its value in terms of a manifest.
func TestPlain(t *testing.T) {
	const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n"
	for text, want := range map[string]string{
		"5":                                   "a number is there; valid: an object with apiVersion and kind",
		"[1, 2]":                              "a list is there; valid: an object",
		"some text":                           "a text is there; valid: an object",
		"apiVersion: 1":                       "apiVersion has a number; valid: a text",
		pod + "spec: []":                      "spec has a list; valid: an object",
		pod + "spec: {a: 1":                   "neither YAML nor JSON",
		pod + "spec: {containers: {name: a}}": "spec.containers has an object; valid: a list",
		"apiVersion: v1\nkind: Pod\nmetadata: {annotations: {a: true}}": "metadata.annotations has true or false; valid: a " +
			"text, in quotes",
		"apiVersion: v1\nkind: Pod\nmetadata: {labels: {a: 5}}": "metadata.labels has a number; valid: a text, in quotes",
		pod + "spec: {hostNetwork: \"yes\"}":                    "spec.hostNetwork has a text; valid: true or false",
		pod + "spec: {terminationGracePeriodSeconds: \"5\"}":    "has a text; valid: a number",
		"apiVersion: v1\nkind: List\nitems: [null, 1]":          "items[1]: a number is there; valid: an object",
		"apiVersion: v1\nkind: List\nitems: {}":                 "items has an object; valid: a list",
	} {
		_, err := Input{Files: []string{"-"}}.Read("default", strings.NewReader(text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "Go ") {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

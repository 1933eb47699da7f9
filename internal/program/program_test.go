package program

import (
	"bytes"
	"strings"
	"testing"
)

func TestAnswer(t *testing.T) {
	for args, want := range map[string]string{
		"--version": "it v", "-v": "it v", "version": "it v", "-version": "it v", "run --version": "it v",
		"--help": "it v: does it\n", "-h": "it v: does it\n", "help": "it v: does it\n", "run -help": "it v: does it\n",
		"": "", "run": "", "run help": "", "run version": "", "--file version": "", "--helpful": "",
	} {
		var out bytes.Buffer
		answered := Program{Name: "it", Help: "does it\n", Stdout: &out}.Answer(strings.Fields(args))
		got := strings.NewReplacer("(devel)", "v").Replace(out.String())
		if answered != (want != "") || got != want && got != want+"\n" {
			t.Errorf("%q: %t, %q, want %q", args, answered, got, want)
		}
	}
}

// The error is one line that starts with the program and ends with a remedy, with any argument.
func TestMisused(t *testing.T) {
	for arg, want := range map[string]string{
		"now":                    `it: unexpected argument "now"; valid: flags; see --help`,
		"a\nb":                   `it: unexpected argument "a\nb"; valid: flags; see --help`,
		strings.Repeat("x", 300): `it: unexpected argument "` + strings.Repeat("x", 250) + `…"; valid: flags; see --help`,
	} {
		var out bytes.Buffer
		if status := (Program{Name: "it", Stderr: &out}).Misused(Unexpected(arg, "flags")); status != 2 ||
			out.String() != want+"\n" {
			t.Errorf("%d, %q, want %q", status, out.String(), want)
		}
	}
}

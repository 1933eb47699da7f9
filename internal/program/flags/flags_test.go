package flags

import (
	"bytes"
	"flag"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/program"
)

// example is a command line with a flag of every kind.
type example struct {
	dir   string
	wait  time.Duration
	rate  float64
	burst int
	quiet bool
	mode  string
}

func (e *example) flags() *flag.FlagSet {
	set := flag.NewFlagSet("", flag.ContinueOnError)
	set.StringVar(&e.dir, "conf-dir", "/etc", "`directory` of it")
	set.DurationVar(&e.wait, "wait", time.Second, "how long")
	set.Float64Var(&e.rate, "rate", 1, "how often")
	set.IntVar(&e.burst, "burst", 1, "at once")
	set.BoolVar(&e.quiet, "quiet", false, "say nothing")
	Func(set, "mode", "`how` (default a)", "a or b", func(text string) bool {
		e.mode = text
		return text == "a" ||
			text == "b"
	})
	return set
}

// run parses a command line. Words with a = before the first flag are environment variables.
func run(line string) (e example, status int, ended bool, stdout, stderr string) {
	env, args := map[string]string{}, strings.Fields(line)
	for len(args) > 0 && strings.HasPrefix(args[0], "EXAMPLE_") {
		name, text, _ := strings.Cut(args[0], "=")
		env[name], args = text, args[1:]
	}
	var out, errs bytes.Buffer
	set := e.flags()
	p := program.Program{Name: "example", Getenv: func(name string) string { return env[name] }, Stdout: &out,
		Stderr: &errs}
	p.Help = Help("shows\n\n{flags}\nand ends\n", set)
	status, ended = Parse(p, set, "EXAMPLE_", args)
	return e, status, ended, out.String(), errs.String()
}

func TestParse(t *testing.T) {
	for line, want := range map[string]example{
		"":                                         {"/etc", time.Second, 1, 1, false, ""},
		"EXAMPLE_CONF_DIR=/a EXAMPLE_MODE=b":       {"/a", time.Second, 1, 1, false, "b"},
		"EXAMPLE_CONF_DIR=/a --conf-dir /b":        {"/b", time.Second, 1, 1, false, ""},
		"EXAMPLE_QUIET=true EXAMPLE_CONF_DIR=":     {"/etc", time.Second, 1, 1, true, ""},
		"--quiet --wait=5m -rate 2 --burst=3":      {"/etc", 5 * time.Minute, 2, 3, true, ""},
		"EXAMPLE_QUIET=true --quiet=0 --mode=a --": {"/etc", time.Second, 1, 1, false, "a"},
	} {
		if got, status, ended, stdout, stderr := run(line); got != want || status != 0 || ended || stdout+stderr != "" {
			t.Errorf("%q: %+v, want %+v; %d, %t, %q, %q", line, got, want, status, ended, stdout, stderr)
		}
	}
}

func TestMisused(t *testing.T) {
	for line, want := range map[string]string{
		"EXAMPLE_BURST=many":      `EXAMPLE_BURST: invalid value "many": parse error; valid: a whole number`,
		"EXAMPLE_MODE=c --mode=a": `EXAMPLE_MODE: invalid value "c"; valid: a or b`,
		"--wait soon":             `--wait: invalid value "soon": parse error; valid: a duration such as 5s`,
		"--rate=fast":             `--rate: invalid value "fast": parse error; valid: a number`,
		"--quiet=perhaps":         `--quiet: invalid value "perhaps": parse error; valid: true or false`,
		"-mode c":                 `--mode: invalid value "c"; valid: a or b`,
		"--nonsense":              "flag provided but not defined: --nonsense",
		"--=x":                    "bad flag syntax: --=x",
		"--conf-dir":              "flag needs an argument: --conf-dir",
		"--quiet now":             `unexpected argument "now"; valid: flags`,
	} {
		_, status, ended, stdout, stderr := run(line)
		if status != 2 || !ended || stdout != "" || stderr != "example: "+want+"; see --help\n" {
			t.Errorf("%q: %d, %t, %q, %q, want %q", line, status, ended, stdout, stderr, want)
		}
	}
}

// The help is printed even if the rest is wrong, and writes flags with two dashes.
func TestHelp(t *testing.T) {
	for _, line := range []string{"--help", "EXAMPLE_BURST=many -h", "help", "--nonsense --help"} {
		_, status, ended, stdout, stderr := run(line)
		if status != 0 || !ended || stderr != "" || !strings.HasSuffix(stdout, "\nand ends\n") {
			t.Errorf("%q: %d, %t, %q, %q", line, status, ended, stdout, stderr)
		}
		for _, want := range []string{
			"\n  --burst int\n    \tat once (default 1)\n", "\n  --conf-dir directory\n", "\n  --mode how\n", "\n  --quiet\n",
		} {
			if !strings.Contains(stdout, want) {
				t.Errorf("%q does not say %q", stdout, want)
			}
		}
	}
}

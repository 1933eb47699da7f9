// Package flags parses a command line. Every flag may also be an environment variable, for a container's manifest.
package flags

import (
	"errors"
	"flag"
	"io"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/istio-pod-network/controller/internal/program"
)

// Parse sets the flags from the environment, and then from the arguments, which take precedence. The variable of
// --conf-dir is prefix + CONF_DIR; an empty variable counts as absent. Without a prefix the environment is not read. If
// ended is true, nothing is left to do, because the command line asked for the help or the version, or was wrong;
// status is then the exit status.
func Parse(p program.Program, set *flag.FlagSet, prefix string, args []string) (status int, ended bool) {
	if p.Answer(args) {
		return program.ExitDone, true
	}
	err := parseEnvironment(set, prefix, p.Getenv)
	if err == nil {
		err = parse(set, args)
	}
	if err != nil {
		return p.Misused(err), true
	}
	return program.ExitDone, false
}

func parseEnvironment(set *flag.FlagSet, prefix string, getenv func(string) string) (err error) {
	set.VisitAll(func(f *flag.Flag) {
		name := prefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if prefix != "" && err == nil && getenv(name) != "" {
			err = (&value{Value: f.Value, key: name}).Set(getenv(name))
		}
	})
	return err
}

// dashes changes the flags' names in errors of package flag, which have one dash, to the form in the documentation.
var dashes = strings.NewReplacer("not defined: -", "not defined: --", "an argument: -", "an argument: --")

func parse(set *flag.FlagSet, args []string) error {
	// Package flag wraps the error about a value in a text of its own, so it is kept here.
	var refused error
	set.VisitAll(func(f *flag.Flag) { f.Value = &value{f.Value, "--" + f.Name, &refused} })
	set.SetOutput(io.Discard)
	set.Usage = func() {}
	switch err := set.Parse(args); {
	case refused != nil:
		return refused
	case err != nil:
		return errors.New(dashes.Replace(err.Error()))
	case set.NArg() > 0:
		return program.Unexpected(set.Arg(0), "flags")
	}
	return nil
}

// value is the value of a flag, with errors of package invalid.
type value struct {
	flag.Value
	key     string // the flag's name
	refused *error // where to keep the error; may be nil
}

// Set sets the value.
func (v *value) Set(text string) error {
	err := v.Value.Set(text)
	if err == nil {
		return nil
	}
	refused := invalid.Text(v.key, text, err.Error(), valid(v.Value))
	errors.As(err, &refused)
	refused.Key = v.key
	if v.refused != nil {
		*v.refused = refused
	}
	return refused
}

// IsBoolFlag reports whether the flag may have no value.
func (v *value) IsBoolFlag() bool {
	b, ok := v.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}

// valid returns what a flag of package flag accepts.
func valid(v flag.Value) string {
	if getter, ok := v.(flag.Getter); ok {
		switch getter.Get().(type) {
		case bool:
			return "true or false"
		case time.Duration:
			return "a duration such as 5s"
		case float64:
			return "a number"
		}
	}
	return "a whole number"
}

// Func defines a flag. accept takes the value, and returns false if it is invalid. valid says what it accepts.
func Func(set *flag.FlagSet, name, usage, valid string, accept func(string) bool) {
	set.Func(name, usage, func(text string) error {
		if accept(text) {
			return nil
		}
		return invalid.Text("", text, "", valid)
	})
}

// Help returns the text, with the usage of the flags instead of {flags}.
func Help(text string, set *flag.FlagSet) string {
	var out strings.Builder
	out.WriteByte('\n')
	set.SetOutput(&out)
	set.PrintDefaults()
	described := strings.ReplaceAll(out.String(), "\n  -", "\n  --")
	return strings.Replace(text, "{flags}\n", described[1:], 1)
}

// Command release builds everything in a release of the project. The same commit always gives the same bytes. It also
// signs and pushes a release, and verifies one that somebody else has built.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/name"
)

// help is the text of --help. scripts/release.sh prints the same file without Go.
//
//go:embed help.txt
var help string

// options are the values of the command line and the environment.
type options struct {
	root     string // of the repository
	command  string
	version  string
	dir      string
	key      string
	registry string
	unsigned bool
	only     string // parts to build; empty for all
	tools    string // platforms of the tool; empty for all

	env func(string) string
	out io.Writer // for progress and results
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = o.run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
	}
	os.Exit(status(err))
}

// notWell is an error about a release or a tree that was checked and is wrong: exit status 1.
type notWell struct{ error }

func (e notWell) Unwrap() error { return e.error }

func notWellf(format string, args ...any) error { return notWell{fmt.Errorf(format, args...)} }

// misuse is an error about the command line or the environment: exit status 2.
type misuse struct{ error }

func misusef(format string, args ...any) error {
	return misuse{fmt.Errorf(format+" (see --help)", args...)}
}

// status returns the exit status.
func status(err error) int {
	var bad notWell
	var wrong misuse
	switch {
	case err == nil:
		return 0
	case errors.As(err, &bad):
		return 1
	case errors.As(err, &wrong):
		return 2
	}
	return 3
}

// flags defines the flags in help, and --root.
func (o *options) flags() *flag.FlagSet {
	f := flag.NewFlagSet("release", flag.ContinueOnError)
	f.Usage = func() {}
	f.SetOutput(io.Discard)
	f.StringVar(&o.root, "root", ".", "")
	f.StringVar(&o.version, "version", "", "")
	f.StringVar(&o.dir, "dir", "", "")
	f.StringVar(&o.key, "key", "", "")
	f.StringVar(&o.registry, "registry", "", "")
	f.BoolVar(&o.unsigned, "unsigned", false, "")
	f.StringVar(&o.only, "only", "", "")
	f.StringVar(&o.tools, "tool-platform", "", "")
	return f
}

// parse reads the command line. The command may be before or after the flags.
func parse(args []string) (o options, err error) {
	o.env, o.out = os.Getenv, os.Stdout
	f := o.flags()
	for rest := args; ; {
		if err := f.Parse(rest); errors.Is(err, flag.ErrHelp) {
			fmt.Print(help)
			return o, err
		} else if err != nil {
			return o, misuse{err}
		}
		if f.NArg() == 0 {
			break
		}
		if o.command != "" {
			return o, misusef("unexpected argument %q", f.Arg(0))
		}
		o.command, rest = f.Arg(0), f.Args()[1:]
	}
	return o, o.complete()
}

// commands are the commands by name. needs: it requires --registry; mayHaveIt: it accepts --registry.
var commands = map[string]struct {
	run              func(options, context.Context) error
	needs, mayHaveIt bool
}{
	"build":   {run: options.build},
	"verify":  {run: options.verify, mayHaveIt: true},
	"check":   {run: options.check},
	"push":    {run: options.push, needs: true, mayHaveIt: true},
	"record":  {run: options.record},
	"rebuild": {run: options.rebuild},
}

func (o *options) complete() (err error) {
	c, known := commands[o.command]
	switch {
	case !known:
		return misusef("command: invalid value %q; valid: build, verify, check, push, record, rebuild", o.command)
	case c.needs && o.registry == "":
		return misusef("%s needs --registry", o.command)
	case !c.mayHaveIt && o.registry != "":
		return misusef("%s has no --registry", o.command)
	case o.only != "" && o.command != "build":
		return misusef("%s has no --only", o.command)
	case o.tools != "" && o.command != "build":
		return misusef("%s has no --tool-platform", o.command)
	}
	for part := range strings.SplitSeq(o.only, ",") {
		if o.only != "" && !slices.Contains(parts, part) {
			return misusef("--only: invalid value %q; valid: %s", part, strings.Join(parts, ", "))
		}
	}
	if _, err := parseTargets(o.tools); err != nil {
		return err
	}
	o.registry = strings.TrimSuffix(o.registry, "/")
	if _, err := name.NewRepository(o.registry + "/image"); o.registry != "" &&
		(err != nil || strings.Contains(o.registry, "://")) {
		return misusef("--registry: invalid value %q; valid: a registry without a scheme, such as "+
			"registry.example.com/mesh", o.registry)
	}
	if o.root, err = filepath.Abs(o.root); err != nil {
		return err
	}
	kept := "release"
	if o.command == "rebuild" {
		kept = "rebuilt"
		if l, err := readList(o.root); err != nil {
			return err
		} else if o.version == "" && len(l.Releases) > 0 {
			o.version = l.Releases[0].Version
		}
	}
	if o.version == "" {
		c, err := readChart(o.root)
		if err != nil {
			return err
		}
		o.version = c.Version
	}
	if !versionForm.MatchString(o.version) {
		return misusef("--version: invalid value %q; valid: a semantic version, such as 1.2.3", o.version)
	}
	if o.dir == "" {
		o.dir = filepath.Join(o.root, "dist", kept, o.version)
	}
	o.dir, err = filepath.Abs(o.dir)
	return err
}

func (o options) run(ctx context.Context) error { return commands[o.command].run(o, ctx) }

// say prints progress or a result.
func (o options) say(format string, args ...any) { fmt.Fprintf(o.out, format+"\n", args...) }

// run runs a command. Its output goes to standard error.
func run(cmd *exec.Cmd) error {
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(cmd.Path), err)
	}
	return nil
}

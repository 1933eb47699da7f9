package pages

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/interp"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
)

// ofUpgrades matches flags of helm that `helm template` does not have.
var ofUpgrades = regexp.MustCompile(`^--(install|reset-then-reuse-values|take-ownership|server-side(=.*)?)$`)

// helm checks the flags with each Helm that the page means, and renders what would be installed.
func (r *reader) helm(shell interp.HandlerContext, name string, args []string) (string, error) {
	helms := []string{name}
	if name == "helm" {
		helms = []string{"helm3", "helm4"}
	}
	for _, helm := range helms {
		if err := r.takes(helm, args[1:]); err != nil {
			return "", fmt.Errorf("%s: %w", helm, err)
		}
	}
	if verb := args[1]; verb != "install" && verb != "upgrade" && verb != "template" {
		_, err := io.WriteString(shell.Stdout, cmp.Or(answers["helm "+verb], "stand-in\n"))
		return checked, err
	}
	render := []string{"template"}
	for _, arg := range args[2:] {
		if regexp.MustCompile(`^--(post-renderer|output-dir)`).MatchString(arg) {
			return "", fmt.Errorf("with %s a render does more than print", arg)
		}
		switch chart, ofIstio := strings.CutPrefix(arg, "istio/"); {
		case strings.HasPrefix(arg, "oci://"): // no registry is here: that chart of the tree
			render = append(render, filepath.Join("chart", path.Base(arg)))
		case ofIstio:
			chart = strings.Replace(chart, "istiod", "istio-control/istio-discovery", 1)
			render = append(render, filepath.Join(isolated.BinDir(), "istio-manifests", "charts", chart))
		case !ofUpgrades.MatchString(arg):
			render = append(render, arg)
		}
	}
	if i := slices.Index(render, "--version"); i >= 0 { // only the version of Istio's module, or of the tree, exists here
		render = slices.Delete(render, i, i+2)
	}
	out := ""
	for _, helm := range helms {
		var err error
		if out, err = r.program(nil, helm, render...); err != nil {
			return "", fmt.Errorf("%s: %w", helm, err)
		}
		if !strings.Contains(out, "\nkind: ") {
			return "", errors.New("nothing is rendered")
		}
	}
	if args[1] != "template" {
		out = "stand-in\n"
	}
	_, err := io.WriteString(shell.Stdout, out)
	return rendered, err
}

// make checks that the target and the options exist.
func (r *reader) make(args []string) error {
	for _, arg := range args[1:] {
		if strings.Contains(arg, "$(") || strings.Contains(arg, "${") || strings.HasPrefix(arg, "--eval") {
			return fmt.Errorf("%s: make would run what is in it, even with --dry-run", arg)
		}
	}
	cmd := exec.Command("make", append([]string{"--dry-run", "-C", build.Root()}, args[1:]...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	makefile, err := os.ReadFile(filepath.Join(build.Root(), "Makefile"))
	if err != nil {
		return err
	}
	for _, arg := range args[1:] {
		option, value, is := strings.Cut(arg, "=")
		if is && !regexp.MustCompile(`##.*[ ;]`+option+`=`).Match(makefile) {
			return fmt.Errorf("no target has the option %s", option)
		}
		if option == "RUN" && !r.scenarios(value) {
			return fmt.Errorf("no scenario is %s", value)
		}
	}
	return nil
}

// scenarios reports whether all names in RUN are scenarios.
func (r *reader) scenarios(run string) bool {
	var all []byte
	tests, err := filepath.Glob(filepath.Join(build.Root(), "conformance", "e2e", "*_test.go"))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, file := range tests {
		text, err := os.ReadFile(file)
		if err != nil {
			r.t.Fatal(err)
		}
		all = append(all, text...)
	}
	for name := range strings.SplitSeq(run, "|") {
		if !bytes.Contains(all, []byte("\nfunc "+name+"(")) {
			return false
		}
	}
	return true
}

// golang checks a go command: its packages exist.
func (r *reader) golang(args []string) error {
	dir := build.Root()
	for _, in := range flagValues(args, "-C") {
		dir = filepath.Join(dir, in)
	}
	for _, arg := range args[1:] {
		if strings.HasPrefix(arg, "./") {
			if sources, err := filepath.Glob(filepath.Join(dir, arg, "*.go")); err != nil || len(sources) == 0 {
				return errors.Join(errors.New("there is no package "+arg), err)
			}
		}
	}
	if verb := subcommand(args); verb != "build" && verb != "test" {
		return fmt.Errorf("go %s is none of build and test", verb)
	}
	return nil
}

// curl checks that the URL is one that the agent serves.
func (r *reader) curl(args []string) error {
	url := args[len(args)-1]
	if !regexp.MustCompile(`^localhost:15088/(healthz|readyz|metrics)$`).MatchString(url) {
		return fmt.Errorf("the agent does not answer %s", url)
	}
	return nil
}

// script checks that the source of a script of the tree has the flags and words with which it is called.
func (r *reader) script(shell interp.HandlerContext, args []string) error {
	text, err := os.ReadFile(filepath.Join(build.Root(), args[0]))
	if err != nil {
		return err
	}
	sources, err := filepath.Glob(filepath.Join(build.Root(), strings.TrimSuffix(args[0], ".sh"), "*.go"))
	if err != nil {
		return err
	}
	for _, file := range sources {
		more, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		text = append(text, more...)
	}
	for i, arg := range args[1:] {
		flag, isFlag := strings.CutPrefix(arg, "--")
		if isFlag && !bytes.Contains(text, []byte(`"`+flag+`"`)) || i == 0 && !isFlag && !bytes.Contains(text, []byte(arg)) {
			return fmt.Errorf("%s is not known to it", arg)
		}
	}
	return drain(shell)
}

// couldNotAsk is the exit status of the operator's tool if no cluster answers.
const couldNotAsk = 3

// tool runs the operator's tool. Explaining files needs no cluster: a refused pod or a lost packet is an answer. For
// commands that need a cluster, it checks the flags.
func (r *reader) tool(shell interp.HandlerContext, args []string) (string, error) {
	out, err := r.program(shell.Stdin, "istio-pod-networkctl", args[1:]...)
	how := ran
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == couldNotAsk {
		out, how, err = "stand-in\n", checked, nil
	}
	if exit != nil && exit.ExitCode() == 1 && out != "" {
		err = nil
	}
	if err == nil {
		_, err = io.WriteString(shell.Stdout, out)
	}
	return how, err
}

// ours checks that another program of this tree has the command and the flags.
func (r *reader) ours(args []string) error {
	name, words := filepath.Base(args[0]), []string{}
	for _, arg := range args[1:] {
		if strings.HasPrefix(arg, "-") {
			break
		}
		words = append(words, arg)
	}
	help, err := r.program(nil, name, append(words, "--help")...)
	if err != nil {
		return err
	}
	all, err := r.program(nil, name, "--help")
	if err != nil {
		return err
	}
	for _, word := range words {
		if !regexp.MustCompile(`(?m)^ +(?:` + name + ` )?` + word + ` `).MatchString(all) {
			return fmt.Errorf("it has no command %s", word)
		}
	}
	for _, arg := range args[1:] {
		flag, _, _ := strings.Cut(arg, "=")
		if strings.HasPrefix(flag, "-") && !regexp.MustCompile(`(?m)[ ,]`+flag+`\b`).MatchString(help) {
			return fmt.Errorf("it has no %s", flag)
		}
	}
	return nil
}

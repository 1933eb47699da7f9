package pages

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/interp"
)

// known are commands that were accepted before: the pages repeat many of them.
var known = map[string]bool{}

// takes returns an error unless a program made with cobra has the command and its flags.
func (r *reader) takes(name string, args []string) error {
	whole := fmt.Sprint(name, args)
	if known[whole] {
		return nil
	}
	at := len(args)
	if end := slices.Index(args, "--"); end >= 0 {
		at = end
	}
	out, err := r.program(nil, name, slices.Insert(slices.Clone(args), at, "--help")...)
	if err != nil {
		return err
	}
	_, usage, _ := strings.Cut(out, "Usage:\n")
	usage, _, _ = strings.Cut(strings.TrimSpace(usage), "\n")
	if words := strings.Fields(usage); len(words) < 2 || strings.HasPrefix(words[1], "[") ||
		slices.Contains(words, "SUBCOMMAND") || slices.Contains(words, "[command]") {
		return fmt.Errorf("it has no such command: its usage is %q", usage)
	}
	known[whole] = true
	return nil
}

// subcommand returns the first word of a command line that is neither a flag nor a flag's value.
func subcommand(args []string) string {
	for i := 1; i < len(args); i++ {
		switch {
		case args[i] == "-n", args[i] == "--namespace", args[i] == "--kubeconfig", args[i] == "-C":
			i++
		case !strings.HasPrefix(args[i], "-"):
			return args[i]
		}
	}
	return ""
}

// onlyOfOc are commands that oc has and kubectl does not.
var onlyOfOc = []string{"new-project", "policy", "whoami"}

func ofKubectl(args []string) bool { return !slices.Contains(onlyOfOc, subcommand(args)) }

// flagValues returns the values of a flag, by any of its names.
func flagValues(args []string, names ...string) (values []string) {
	for i, arg := range args {
		if slices.Contains(names, arg) && i+1 < len(args) {
			values = append(values, args[i+1])
		}
		for _, name := range names {
			if value, is := strings.CutPrefix(arg, name+"="); is {
				values = append(values, value)
			}
		}
	}
	return values
}

// kubectl checks the flags, that the files exist, and that JSONPath expressions are valid.
func (r *reader) kubectl(shell interp.HandlerContext, args []string) error {
	if err := r.takes("kubectl", args[1:]); err != nil {
		return err
	}
	for _, file := range flagValues(args, "-f", "--filename", "--patch-file") {
		if file == "-" {
			if text, err := io.ReadAll(shell.Stdin); err != nil || len(bytes.TrimSpace(text)) == 0 {
				return errors.Join(errors.New("there is nothing to read"), err)
			}
		} else if _, err := os.Stat(filepath.Join(r.dir, file)); err != nil {
			return err
		}
	}
	out := "stand-in\n"
	for _, format := range flagValues(args, "-o", "--output") {
		if strings.HasPrefix(format, "jsonpath=") {
			if _, err := r.program(nil, "kubectl", "annotate", "--local", "-f", "pod.yaml", "a=b", "-o", format); err != nil {
				return err
			}
		}
		if format == "yaml" {
			text, err := os.ReadFile(r.pod())
			if err != nil {
				return err
			}
			out = string(text)
		}
	}
	_, err := io.WriteString(shell.Stdout, out)
	return err
}

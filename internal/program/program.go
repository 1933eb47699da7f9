// Package program is the frame of every program's command line: its help, its version, and errors about wrong usage.
package program

import (
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/istio-pod-network/controller/internal/buildinfo"
	"github.com/istio-pod-network/controller/internal/excerpt"
)

// Exit statuses of all programs.
const (
	ExitDone   = 0
	ExitFailed = 1
	ExitUsage  = 2
)

// Program is a program, or one of its commands.
type Program struct {
	Name           string // the start of its errors
	Help           string // the help after the name and the version
	Getenv         func(string) string
	Stdout, Stderr io.Writer
}

// New returns the program for this process.
func New(name, help string) Program { return Program{name, help, os.Getenv, os.Stdout, os.Stderr} }

// Answer prints the version or the help if the arguments ask for it, and returns whether they did.
func (p Program) Answer(args []string) bool {
	switch {
	case asks(args, "version", "-v", "-version", "--version"):
		fmt.Fprintln(p.Stdout, p.Name, buildinfo.Version())
	case asks(args, "help", "-h", "--h", "-help", "--help"):
		p.WriteHelp(p.Stdout)
	default:
		return false
	}
	return true
}

// asks reports whether the first argument is the command, or any argument is one of the flags.
func asks(args []string, command string, flags ...string) bool {
	given := func(arg string) bool { return slices.Contains(flags, arg) }
	return slices.ContainsFunc(args, given) || len(args) > 0 && args[0] == command
}

// WriteHelp writes the help.
func (p Program) WriteHelp(out io.Writer) {
	fmt.Fprintf(out, "%s %s: %s", p.Name, buildinfo.Version(), p.Help)
}

// Misused prints what is wrong with the command line, in one line, and where the help is. It returns the exit status.
func (p Program) Misused(err error) int {
	fmt.Fprintf(p.Stderr, "%s: %v; see --help\n", p.Name, err)
	return ExitUsage
}

// Unexpected returns the error for an argument that the program does not expect. valid says what it accepts.
func Unexpected(arg, valid string) error {
	return fmt.Errorf("unexpected argument %s; valid: %s", excerpt.Quote(arg), valid)
}

package await

import (
	"io"
	"math"
	"os"
	"testing"
)

// Output collects what is written into File. It can be read at any time until the test has ended.
//
// A program gets the file itself as its standard output: with a pipe, this process would copy what the program writes,
// and could still be about to when the program has answered in another way.
type Output struct {
	File *os.File
	t    testing.TB
}

// NewOutput returns an empty output.
func NewOutput(t testing.TB) *Output {
	t.Helper()
	file, err := os.CreateTemp("", "output-")
	Must(t, err)
	t.Cleanup(func() { _ = file.Close() })
	Must(t, os.Remove(file.Name())) // it exists as long as it is open
	return &Output{File: file, t: t}
}

// String returns everything that has been written so far.
func (o *Output) String() string {
	o.t.Helper()
	text, err := io.ReadAll(io.NewSectionReader(o.File, 0, math.MaxInt64))
	Must(o.t, err)
	return string(text)
}

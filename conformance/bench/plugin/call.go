package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// call is one execution of a CNI plugin, or of any program, as a runtime does it: environment, configuration on stdin,
// result on stdout.
type call struct {
	path  string
	args  []string
	env   []string
	stdin []byte
}

// sample is the cost of one call.
type sample struct {
	wall time.Duration // from before the fork until the process was waited for
	cpu  time.Duration // user and system time, of the programs that it executed, too
}

// stdio has both ends of a call's standard files.
type stdio struct {
	child  []*os.File
	stdout *os.File
}

// open makes the pipes and writes stdin. A configuration fits into a pipe's 64 KiB.
func (c call) open() (stdio, error) {
	var s stdio
	inR, inW, err := os.Pipe()
	if err != nil {
		return s, err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		return s, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return s, err
	}
	_, err = inW.Write(c.stdin)
	inW.Close()
	return stdio{child: []*os.File{inR, outW, null}, stdout: outR}, err
}

func (s stdio) closeChild() {
	for _, f := range s.child {
		f.Close()
	}
}

// run executes the call and measures it. A non-zero exit status is an error with the program's output.
func (c call) run() (sample, error) {
	files, err := c.open()
	if err != nil {
		return sample{}, err
	}
	defer files.stdout.Close()
	attr := &os.ProcAttr{Env: c.env, Files: files.child}
	start := time.Now()
	proc, err := os.StartProcess(c.path, append([]string{c.path}, c.args...), attr)
	files.closeChild()
	if err != nil {
		return sample{}, err
	}
	out, readErr := io.ReadAll(files.stdout)
	state, err := proc.Wait()
	wall := time.Since(start)
	if err != nil || readErr != nil {
		return sample{}, fmt.Errorf("waiting for %q: %w", c.path, errors.Join(err, readErr))
	}
	if !state.Success() {
		return sample{}, fmt.Errorf("%s: %s", state, out)
	}
	return sample{wall: wall, cpu: cpuTime(state)}, nil
}

// warm runs the same program once without measuring it. The plugin has more rows than echo. Without this, its pages
// would be warmer in the CPU's caches when a measured call begins.
func (c call) warm() error {
	if len(c.args) > 0 {
		return nil
	}
	_, err := call{path: c.path, env: []string{"CNI_COMMAND=VERSION"}, stdin: c.stdin}.run()
	return err
}

func cpuTime(state *os.ProcessState) time.Duration {
	usage := state.SysUsage().(*syscall.Rusage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

package apiserver

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Process is a child process whose output is in a log file. It ends with the process namespace at the latest.
type Process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

// Run starts a program and appends its output to a log file.
func Run(log, program string, args ...string) (*Process, error) {
	return RunCommand(log, exec.Command(program, args...))
}

// RunCommand starts a command and appends its output to a log file.
func RunCommand(log string, command *exec.Cmd) (*Process, error) {
	p := &Process{cmd: command, log: log, done: make(chan struct{})}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	return p, nil
}

// Signal sends a signal to the process.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Kill kills the process and waits until it has ended.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // fails if it has already ended
	<-p.done
}

// Done returns a channel that is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Ended reports whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// tick is the unit of processor times in /proc (proc_pid_stat(5)), 1/USER_HZ. It is the same on every architecture that
// Go supports.
const tick = 10 * time.Millisecond

// Used returns the processor time that the process has used so far.
func (p *Process) Used() (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var user, system time.Duration
	if _, err := fmt.Sscan(fields[11]+" "+fields[12], (*int64)(&user), (*int64)(&system)); err != nil {
		return 0, err
	}
	return (user + system) * tick, nil
}

// Tail returns the last 2000 bytes of the log.
func (p *Process) Tail() string {
	data, _ := os.ReadFile(p.log)
	return string(data[max(0, len(data)-2000):])
}

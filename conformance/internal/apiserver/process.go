package apiserver

import (
	"os"
	"os/exec"
)

// Process is a program that runs beside this one, with a log. It ends with the process namespace at the latest.
type Process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

// Run starts a program whose output is appended to a file.
func Run(log, program string, args ...string) (*Process, error) {
	return RunCommand(log, exec.Command(program, args...))
}

// RunCommand starts a command whose output is appended to a file.
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

// Signal sends a signal.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Kill ends it and waits until it has.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // fails where it has ended
	<-p.done
}

// Done is closed when it has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Ended reports whether it has.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Tail is the end of the log.
func (p *Process) Tail() string {
	data, _ := os.ReadFile(p.log)
	return string(data[max(0, len(data)-2000):])
}

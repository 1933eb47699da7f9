package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// traced has the counts of a run under ptrace. Such a run is not timed.
type traced struct {
	Programs []string // programs executed by the plugin and its children, in order
	Syscalls int      // of all threads and children
	PeakKiB  int      // VmHWM of the plugin's own process
}

// traceOptions make the kernel trace every thread and child, and stop each once more before it ends.
const traceOptions = unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_TRACECLONE |
	unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACEEXIT | unix.PTRACE_O_EXITKILL

// trace executes the call under ptrace. Peak memory is VmHWM at exit and not ru_maxrss: Go starts a child in its own
// memory (CLONE_VM), and exec adds that memory's peak to the child's ru_maxrss, so that would be this program's peak.
func (c call) trace() (traced, error) {
	runtime.LockOSThread() // the kernel accepts ptrace requests from the tracing thread alone
	defer runtime.UnlockOSThread()
	files, err := c.open()
	if err != nil {
		return traced{}, err
	}
	defer files.stdout.Close()
	attr := &os.ProcAttr{Env: c.env, Files: files.child, Sys: &syscall.SysProcAttr{Ptrace: true}}
	proc, err := os.StartProcess(c.path, append([]string{c.path}, c.args...), attr)
	files.closeChild()
	if err != nil {
		return traced{}, err
	}
	t := tracer{pid: proc.Pid, seen: map[int]bool{proc.Pid: true}}
	status, err := t.follow()
	_ = proc.Release()
	if err != nil {
		return traced{}, fmt.Errorf("tracing %q: %w", c.path, err)
	}
	out, _ := io.ReadAll(files.stdout)
	if status != 0 {
		return traced{}, fmt.Errorf("traced run exits %d: %s", status, out)
	}
	t.Syscalls /= 2 // each call stops at its entry and at its exit
	return t.traced, nil
}

// tracer is the state of one traced run.
type tracer struct {
	traced
	pid  int
	seen map[int]bool // threads and processes whose first stop was handled
}

// follow resumes every stop until the process pid has ended, and returns its exit status.
func (t *tracer) follow() (int, error) {
	var ws syscall.WaitStatus
	if _, err := syscall.Wait4(t.pid, &ws, 0, nil); err != nil {
		return 0, err
	}
	if err := syscall.PtraceSetOptions(t.pid, traceOptions); err != nil {
		return 0, err
	}
	if err := syscall.PtraceSyscall(t.pid, 0); err != nil {
		return 0, err
	}
	for {
		tid, err := syscall.Wait4(-1, &ws, syscall.WALL, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return 0, err
		case ws.Exited() && tid == t.pid:
			return ws.ExitStatus(), nil
		case ws.Signaled() && tid == t.pid:
			return 128 + int(ws.Signal()), nil
		case ws.Stopped():
			// ESRCH: the thread was killed while it was stopped. Its end is reported next.
			if err := syscall.PtraceSyscall(tid, t.stop(tid, ws)); err != nil && err != syscall.ESRCH {
				return 0, err
			}
		}
	}
}

// stop counts what a stop means, and returns the signal to deliver, 0 for none.
func (t *tracer) stop(tid int, ws syscall.WaitStatus) int {
	first := !t.seen[tid]
	t.seen[tid] = true
	switch signal := ws.StopSignal(); {
	case signal == syscall.SIGTRAP|0x80:
		t.Syscalls++
	case signal == syscall.SIGTRAP:
		t.event(tid, ws.TrapCause())
	case signal == syscall.SIGSTOP && first: // a new thread or child
	default:
		return int(signal)
	}
	return 0
}

func (t *tracer) event(tid, cause int) {
	proc := filepath.Join("/proc", strconv.Itoa(tid))
	switch cause {
	case unix.PTRACE_EVENT_EXEC:
		exe, _ := os.Readlink(filepath.Join(proc, "exe"))
		t.Programs = append(t.Programs, filepath.Base(exe))
	case unix.PTRACE_EVENT_EXIT:
		status, _ := os.ReadFile(filepath.Join(proc, "status"))
		if statusField(status, "Tgid") == t.pid {
			t.PeakKiB = max(t.PeakKiB, statusField(status, "VmHWM"))
		}
	}
}

// statusField reads a number from /proc/<pid>/status, 0 if it is not there.
func statusField(status []byte, name string) int {
	for line := range bytes.Lines(status) {
		if rest, ok := strings.CutPrefix(string(line), name+":"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	return 0
}

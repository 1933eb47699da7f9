package testnet

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ids is a user and a group ID as the host sees them.
type ids struct{ uid, gid int }

// thread is an OS thread in one network namespace with one identity. It runs calls one after the other.
type thread struct{ calls chan func() }

// startThread starts a thread in the namespace ns, with the IDs of who and, unless they are root's, with exactly these
// capabilities. The thread is never returned to the Go runtime, because its namespace and credentials cannot be
// restored reliably: stop ends it.
func startThread(ns *os.File, who ids, capabilities ...uint) (*thread, error) {
	t := &thread{calls: make(chan func())}
	ready := make(chan error)
	go t.run(ns, who, capabilities, ready)
	return t, <-ready
}

func (t *thread) run(ns *os.File, who ids, capabilities []uint, ready chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// /proc/self shows the leader of the thread group, so that must not change. While this goroutine holds it,
		// another goroutine gets another thread.
		inner := make(chan error)
		go t.run(ns, who, capabilities, inner)
		ready <- <-inner
		runtime.UnlockOSThread()
		return
	}
	err := enter(ns, who, len(capabilities) > 0)
	if err == nil && len(capabilities) > 0 {
		err = limit(capabilities)
	}
	ready <- err
	if err != nil {
		return
	}
	for call := range t.calls {
		call()
	}
}

// enter changes the calling thread only: the functions of package syscall would change every thread of the process.
// With keep, IDs other than root's keep their permitted capabilities.
func enter(ns *os.File, who ids, keep bool) error {
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering network namespace %q: %w", ns.Name(), err)
	}
	if who == (ids{}) {
		return nil
	}
	if keep {
		if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("keeping capabilities: %w", err)
		}
	}
	steps := []struct {
		name      string
		trap      uintptr
		a1, a2, r uintptr
	}{
		{"setgroups", unix.SYS_SETGROUPS, 0, 0, 0},
		{"setresgid", unix.SYS_SETRESGID, uintptr(who.gid), uintptr(who.gid), uintptr(who.gid)},
		{"setresuid", unix.SYS_SETRESUID, uintptr(who.uid), uintptr(who.uid), uintptr(who.uid)},
	}
	for _, step := range steps {
		if _, _, errno := unix.RawSyscall(step.trap, step.a1, step.a2, step.r); errno != 0 {
			return fmt.Errorf("calling %s for %d:%d: %w", step.name, who.uid, who.gid, errno)
		}
	}
	return nil
}

// limit sets the capabilities of the calling thread.
func limit(capabilities []uint) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	for _, c := range capabilities {
		sets[c/32].Effective |= 1 << (c % 32)
		sets[c/32].Permitted |= 1 << (c % 32)
	}
	if err := unix.Capset(&header, &sets[0]); err != nil {
		return fmt.Errorf("limiting capabilities: %w", err)
	}
	return nil
}

// do runs call on the thread and waits for it.
func (t *thread) do(call func()) {
	done := make(chan struct{})
	t.calls <- func() { defer close(done); call() }
	<-done
}

// stop ends the thread: the OS thread ends with its goroutine.
func (t *thread) stop() { close(t.calls) }

// socket creates a socket on the thread, with its namespace and identity. Everything else, such as connect(2), may
// happen on any thread: the kernel uses only the credentials with which the file was created.
func (t *thread) socket(domain, kind, proto int) (fd int, err error) {
	t.do(func() { fd, err = unix.Socket(domain, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto) })
	if err != nil {
		return -1, fmt.Errorf("making a socket: %w", err)
	}
	return fd, nil
}

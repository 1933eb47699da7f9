package testnet

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ids is a pair of user and group ID as the host sees them.
type ids struct{ uid, gid int }

// thread is an OS thread inside one network namespace with one identity. It runs calls one after the other.
type thread struct{ calls chan func() }

// startThread starts a thread in the namespace open as ns, with the identity of who, and of the capabilities with
// those alone, unless it is root. The thread is never given back to the Go runtime, because neither its namespace nor
// its credentials can be restored reliably: it ends with stop.
func startThread(ns *os.File, who ids, capabilities ...uint) (*thread, error) {
	t := &thread{calls: make(chan func())}
	ready := make(chan error)
	go t.run(ns, who, capabilities, ready)
	return t, <-ready
}

func (t *thread) run(ns *os.File, who ids, capabilities []uint, ready chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The thread group's leader is what /proc/self shows: it must stay as it is. While this goroutine holds it,
		// another one gets another thread.
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

// enter changes the calling thread only: the wrappers of package syscall would change every thread of the process.
// With keep, those who are not root keep the capabilities that they may have.
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

// limit leaves the calling thread those capabilities.
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

// stop ends the thread; the OS thread dies with its goroutine.
func (t *thread) stop() { close(t.calls) }

// socket makes a socket on the thread, and so with its namespace and identity. Everything else, connecting included,
// may happen on any thread: the kernel looks only at the credentials that the file was made with.
func (t *thread) socket(domain, kind, proto int) (fd int, err error) {
	t.do(func() { fd, err = unix.Socket(domain, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto) })
	if err != nil {
		return -1, fmt.Errorf("making a socket: %w", err)
	}
	return fd, nil
}

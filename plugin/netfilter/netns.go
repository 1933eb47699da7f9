package netfilter

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/containernetworking/plugins/pkg/ns"
	"golang.org/x/sys/unix"
)

// NetNS is an open network namespace other than the caller's own.
type NetNS struct{ ns ns.NetNS }

// errNetNS is the error for a path that is not a pod's network namespace.
type errNetNS struct{ path, problem string }

func (e *errNetNS) Error() string {
	return fmt.Sprintf("opening network namespace %q: %s", e.path, e.problem)
}

// IsNetNS reports whether err says that a path is not a pod's network namespace.
func IsNetNS(err error) bool {
	var target *errNetNS
	return errors.As(err, &target)
}

// IsGone reports whether err says that the network namespace does not exist any more.
func IsGone(err error) bool {
	var gone ns.NSPathNotExistErr
	return errors.As(err, &gone)
}

// Open opens the network namespace at the path. It refuses the caller's own one: if a runtime passes it by mistake, the
// rules of a pod must not be written to the node. IsNetNS and IsGone tell its errors apart.
func Open(path string) (*NetNS, error) {
	handle, err := ns.GetNS(path)
	if err != nil {
		var gone ns.NSPathNotExistErr
		if errors.As(err, &gone) {
			return nil, err
		}
		return nil, &errNetNS{path, err.Error()}
	}
	n := &NetNS{handle}
	if err := n.verify(); err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// Close closes the handle. The namespace continues to exist.
func (n *NetNS) Close() { _ = n.ns.Close() }

// Within runs f on a thread in the namespace. A thread that cannot return to its namespace ends with its goroutine.
func (n *NetNS) Within(f func() error) (err error) {
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return nodeError{fmt.Errorf("opening the own network namespace: %w", err)}
	}
	defer own.Close()
	if err := unix.Setns(int(n.ns.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nodeError{fmt.Errorf("entering network namespace %q: %w", n.ns.Path(), err)}
	}
	defer func() {
		if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
			err = errors.Join(err, fmt.Errorf("leaving network namespace %q: %w", n.ns.Path(), back))
			return
		}
		runtime.UnlockOSThread()
	}()
	return f()
}

// verify returns an error for what is not a pod's network namespace.
func (n *NetNS) verify() error {
	var target, own unix.Stat_t
	if err := unix.Fstat(int(n.ns.Fd()), &target); err != nil {
		return &errNetNS{n.ns.Path(), err.Error()}
	}
	// Namespaces of other kinds are on nsfs too, so only the kernel can tell the kind (ioctl_ns(2)).
	kind, err := unix.IoctlRetInt(int(n.ns.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		return &errNetNS{n.ns.Path(), "not a network namespace"}
	}
	if err := unix.Stat("/proc/thread-self/ns/net", &own); err != nil {
		return fmt.Errorf("reading the own network namespace: %w", err)
	}
	if target.Ino == own.Ino && target.Dev == own.Dev {
		return &errNetNS{n.ns.Path(), "this is the caller's own, not a pod's"}
	}
	return nil
}

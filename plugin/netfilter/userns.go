package netfilter

import (
	"os"

	"golang.org/x/sys/unix"
)

// owner opens the user namespace that owns the network namespace (ioctl_ns(2), NS_GET_USERNS).
func (n *NetNS) owner() (*os.File, error) {
	fd, err := unix.IoctlRetInt(int(n.ns.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "user namespace"), nil
}

// userNamespaced reports whether another user namespace than the caller's owns the network namespace, as that of a pod
// with hostUsers: false.
func (n *NetNS) userNamespaced() bool {
	if n.ns == nil {
		return false
	}
	owner, err := n.owner()
	if err != nil {
		return false
	}
	defer owner.Close()
	var theirs, own unix.Stat_t
	if unix.Fstat(int(owner.Fd()), &theirs) != nil || unix.Stat("/proc/self/ns/user", &own) != nil {
		return false
	}
	return theirs.Ino != own.Ino
}

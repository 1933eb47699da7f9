package netfilter

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// owner opens the user namespace that owns the network namespace (NS_GET_USERNS, ioctl_ns(2)).
func (n *NetNS) owner() (*os.File, error) {
	fd, err := unix.IoctlRetInt(int(n.ns.Fd()), unix.NS_GET_USERNS)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "user namespace"), nil
}

// UserNamespaced reports whether another user namespace than the caller's owns the network namespace, as with
// hostUsers: false.
func (n *NetNS) UserNamespaced() bool {
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

// release returns the kernel's release (uname(2)). Tests change it.
var release = func() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return ""
	}
	return cstring(name.Release[:])
}

// mistakesOwners returns an error on a kernel whose nf_tables compares socket owners by the node's user IDs even if the
// pod has a user namespace. The rules would then redirect the sidecar's own traffic to the sidecar. Observed in Linux
// 4.18 and 5.4, correct since 5.10. Source: net/netfilter/nft_meta.c, nft_meta_get_eval_skugid.
func (n *NetNS) mistakesOwners() error {
	kernel := release()
	if atLeast(kernel, 5, 10) || !n.UserNamespaced() {
		return nil
	}
	return fmt.Errorf("before Linux 5.10, and this is %s, it does not know the sidecar's user in a pod with a user "+
		"namespace of its own (hostUsers: false)", kernel)
}

// atLeast compares the first two numbers of a kernel release, such as 5.10.0-33-amd64.
func atLeast(release string, major, minor int) bool {
	first, rest, _ := strings.Cut(release, ".")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		rest = rest[:end]
	}
	x, _ := strconv.Atoi(first)
	y, _ := strconv.Atoi(rest)
	return x > major || x == major && y >= minor
}

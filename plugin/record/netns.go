package record

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// NetNS is the identity of a network namespace, `<boot-id>/<inode>/<cookie>`: an inode number is reused at once, the
// cookie never is while the machine is up. A kernel that has no cookies (Linux before 5.14) gives `-`. Two are compared
// with ==; equal ones without a cookie may be a namespace and one that is gone, see HasCookie.
type NetNS string

// noCookie stands for the cookie of a kernel that has none.
const noCookie = "-"

// CurrentNetNS is that of the calling thread.
func CurrentNetNS() (NetNS, error) {
	info, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return "", fmt.Errorf("reading the own network namespace: %w", err)
	}
	boot, err := ReadBootID()
	if err != nil {
		return "", err
	}
	cookie := noCookie
	if c, err := netnsCookie(); err == nil {
		cookie = fmt.Sprint(c)
	}
	return netnsOf(boot, fmt.Sprint(info.Sys().(*syscall.Stat_t).Ino), cookie), nil
}

func netnsOf(boot BootID, inode, cookie string) NetNS {
	return NetNS(fmt.Sprintf("%s/%s/%s", boot, inode, cookie))
}

func (n NetNS) parse() (boot BootID, inode, cookie string) {
	first, rest, _ := strings.Cut(string(n), "/")
	inode, cookie, _ = strings.Cut(rest, "/")
	return BootID(first), inode, cookie
}

// Boot is the boot that the namespace is of; it does not survive it.
func (n NetNS) Boot() BootID {
	boot, _, _ := n.parse()
	return boot
}

// HasCookie reports whether the identity tells the namespace from one that is gone.
func (n NetNS) HasCookie() bool {
	_, _, cookie := n.parse()
	return cookie != "" && cookie != noCookie
}

// WithoutCookie is how a kernel that has no cookies would identify the namespace.
func (n NetNS) WithoutCookie() NetNS {
	boot, inode, _ := n.parse()
	return netnsOf(boot, inode, noCookie)
}

// BootID tells one boot of a machine from all others. Source: random(4), boot_id.
type BootID string

// ReadBootID is that of the kernel that runs.
func ReadBootID() (BootID, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("reading the boot ID: %w", err)
	}
	return BootID(strings.TrimSpace(string(id))), nil
}

const soNetnsCookie = 71 // SO_NETNS_COOKIE, Linux 5.14; include/uapi/asm-generic/socket.h

// netnsCookie asks a socket for the cookie of its network namespace.
func netnsCookie() (uint64, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = syscall.Close(fd) }()
	// The kernel wants room for exactly 8 bytes, which is what package syscall passes for this structure.
	raw, err := syscall.GetsockoptIPMreq(fd, syscall.SOL_SOCKET, soNetnsCookie)
	if err != nil {
		return 0, err
	}
	return binary.NativeEndian.Uint64(append(raw.Multiaddr[:], raw.Interface[:]...)), nil
}

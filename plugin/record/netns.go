package record

import (
	"fmt"
	"strings"
)

// NetNS is the identity of a network namespace: `<boot-id>/<inode>/<cookie>`. The kernel may reuse an inode number at
// once, but never a cookie until the next boot. On a kernel without SO_NETNS_COOKIE (Linux before 5.14) the cookie is
// `-`. Identities are compared with ==. Without a cookie, an equal identity may be that of a namespace that is gone:
// see HasCookie.
type NetNS string

// noCookie stands for the cookie on a kernel without SO_NETNS_COOKIE.
const noCookie = "-"

func netnsOf(boot BootID, inode, cookie string) NetNS {
	return NetNS(fmt.Sprintf("%s/%s/%s", boot, inode, cookie))
}

func (n NetNS) parse() (boot BootID, inode, cookie string) {
	first, rest, _ := strings.Cut(string(n), "/")
	inode, cookie, _ = strings.Cut(rest, "/")
	return BootID(first), inode, cookie
}

// Boot returns the boot that the namespace belongs to. No network namespace survives a reboot.
func (n NetNS) Boot() BootID {
	boot, _, _ := n.parse()
	return boot
}

// HasCookie reports whether the identity cannot be that of an earlier namespace.
func (n NetNS) HasCookie() bool {
	_, _, cookie := n.parse()
	return cookie != "" && cookie != noCookie
}

// WithoutCookie returns the identity that a kernel without SO_NETNS_COOKIE would give the namespace.
func (n NetNS) WithoutCookie() NetNS {
	boot, inode, _ := n.parse()
	return netnsOf(boot, inode, noCookie)
}

// BootID identifies one boot of a machine. Source: /proc/sys/kernel/random/boot_id, random(4).
type BootID string

package record

import (
	"fmt"
	"strings"
)

// NetNS is the identity of a network namespace, `<boot-id>/<inode>/<cookie>`: an inode number is reused at once, the
// cookie never is while the machine is up. A kernel that has no cookies (Linux before 5.14) gives `-`. Two are compared
// with ==; equal ones without a cookie may be a namespace and one that is gone, see HasCookie.
type NetNS string

// noCookie stands for the cookie of a kernel that has none.
const noCookie = "-"

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

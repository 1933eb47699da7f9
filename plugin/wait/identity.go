package wait

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// identity is that of a network namespace: <boot-id>/<inode>/<cookie>, as in the plugin's record.
type identity struct {
	boot, inode string
	cookie      string // "-" where the kernel has none
}

// noCookie stands for the cookie that a kernel before 5.14 cannot give.
const noCookie = "-"

func (i identity) String() string { return i.boot + "/" + i.inode + "/" + i.cookie }

// ownIdentity is that of the network namespace the program runs in.
func ownIdentity() (identity, error) {
	info, err := os.Stat("/proc/self/ns/net")
	if err != nil {
		return identity{}, fmt.Errorf("reading the own network namespace: %w", err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return identity{}, fmt.Errorf("reading the boot ID: %w", err)
	}
	own := identity{boot: strings.TrimSpace(string(boot)), inode: fmt.Sprint(info.Sys().(*syscall.Stat_t).Ino), cookie: noCookie}
	if cookie, err := netnsCookie(); err == nil {
		own.cookie = fmt.Sprint(cookie)
	}
	return own, nil
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

package record

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// CurrentNetNS returns the identity of the network namespace of the calling thread.
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

// ReadBootID returns the boot ID of the running kernel.
func ReadBootID() (BootID, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("reading the boot ID: %w", err)
	}
	return BootID(strings.TrimSpace(string(id))), nil
}

const soNetnsCookie = 71 // SO_NETNS_COOKIE, Linux 5.14; include/uapi/asm-generic/socket.h

// netnsCookie reads the cookie of the thread's network namespace from a socket.
func netnsCookie() (uint64, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = syscall.Close(fd) }()
	// The kernel requires a buffer of exactly 8 bytes (net/core/sock.c, sk_getsockopt). Package syscall passes that
	// size for this structure.
	raw, err := syscall.GetsockoptIPMreq(fd, syscall.SOL_SOCKET, soNetnsCookie)
	if err != nil {
		return 0, err
	}
	return binary.NativeEndian.Uint64(append(raw.Multiaddr[:], raw.Interface[:]...)), nil
}

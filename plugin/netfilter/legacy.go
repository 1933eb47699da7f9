package netfilter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

// The kernel's x_tables interface. It shows the user-defined chains of iptables-legacy even if the host lacks the
// legacy programs. Source: include/uapi/linux/netfilter_ipv4/ip_tables.h,
// include/uapi/linux/netfilter_ipv6/ip6_tables.h.
const (
	soGetInfo    = 64 // IPT_SO_GET_INFO and IP6T_SO_GET_INFO
	soGetEntries = 65 // IPT_SO_GET_ENTRIES and IP6T_SO_GET_ENTRIES
	tableNameLen = 32 // XT_TABLE_MAXNAMELEN
	inetHooks    = 5  // NF_INET_NUMHOOKS
	infoLen      = tableNameLen + 4*(1+inetHooks+inetHooks+1+1)
	entriesHead  = tableNameLen + 8 // the offset of the entries in struct ipt_get_entries, which are 8-byte aligned

	// The offset of target_offset in struct ipt_entry (ip6t_entry), after the IP part and nfcache. next_offset follows
	// it; both are u16.
	targetOffset4, targetOffset6 = 84 + 4, 136 + 4
	targetHead                   = 32 // struct xt_entry_target: u16 size, 29 bytes of name, u8 revision
)

// legacyChains returns the names of the user-defined chains in a table of iptables-legacy, in the calling thread's
// network namespace.
func legacyChains(family redirect.Family, table string) (names []string, err error) {
	offset := targetOffset4
	if family == redirect.IPv6 {
		offset = targetOffset6
	}
	err = withLegacyTable(family, table, func(fd, level int, info []byte) error {
		size := binary.NativeEndian.Uint32(info[infoLen-4:])
		if size > netlink.Limit {
			return fmt.Errorf("its %d bytes are over the limit of %d", size, netlink.Limit)
		}
		entries := make([]byte, entriesHead+int(size))
		copy(entries, table)
		binary.NativeEndian.PutUint32(entries[tableNameLen:], size)
		if err := getsockopt(fd, level, soGetEntries, entries); err != nil {
			return err
		}
		names, err = chainNames(entries[entriesHead:], offset)
		return err
	})
	return names, err
}

// legacyHooks returns the hooks whose built-in chain in a table of iptables-legacy has rules. A chain without rules has
// only its policy, so its first entry is its last.
func legacyHooks(family redirect.Family, table string) (used map[uint32]bool, err error) {
	used = map[uint32]bool{}
	err = withLegacyTable(family, table, func(_, _ int, info []byte) error {
		word := func(n int) uint32 { return binary.NativeEndian.Uint32(info[tableNameLen+4*n:]) }
		for hook := range uint32(inetHooks) {
			valid := word(0)&(1<<hook) != 0
			used[hook] = valid && word(1+int(hook)) != word(1+inetHooks+int(hook)) // hook_entry, underflow
		}
		return nil
	})
	return used, err
}

// withLegacyTable runs f with a socket for the family, and with the table's struct ipt_getinfo.
func withLegacyTable(family redirect.Family, table string, f func(fd, level int, info []byte) error) error {
	domain, level := unix.AF_INET, unix.IPPROTO_IP
	if family == redirect.IPv6 {
		domain, level = unix.AF_INET6, unix.IPPROTO_IPV6
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	info := make([]byte, infoLen)
	copy(info, table)
	if err := getsockopt(fd, level, soGetInfo, info); err != nil {
		return err
	}
	return f(fd, level, info)
}

func getsockopt(fd, level, option int, buffer []byte) error {
	length := uint32(len(buffer))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&buffer[0])), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// chainNames walks through the entries of a table. A user-defined chain starts with an entry whose target is named
// ERROR and contains the chain's name. The last entry is an ERROR too, and ends the table.
func chainNames(entries []byte, offset int) ([]string, error) {
	var names []string
	for at := 0; at < len(entries); {
		if at+offset+4 > len(entries) {
			return nil, errors.New("truncated table")
		}
		target := at + int(binary.NativeEndian.Uint16(entries[at+offset:]))
		next := at + int(binary.NativeEndian.Uint16(entries[at+offset+2:]))
		if next <= at || target+targetHead > next || next > len(entries) {
			return nil, errors.New("malformed table")
		}
		if cstring(entries[target+2:target+targetHead-1]) == "ERROR" && next < len(entries) {
			names = append(names, cstring(entries[target+targetHead:next]))
		}
		at = next
	}
	return names, nil
}

func cstring(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

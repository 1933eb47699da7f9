package netfilter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"unsafe"

	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

// The x_tables interface of the kernel, by which the user-defined chains of iptables-legacy are found also where the
// host has no legacy tool. Source: include/uapi/linux/netfilter_ipv4/ip_tables.h and netfilter_ipv6/ip6_tables.h.
const (
	soGetInfo    = 64 // IPT_SO_GET_INFO and IP6T_SO_GET_INFO
	soGetEntries = 65 // IPT_SO_GET_ENTRIES and IP6T_SO_GET_ENTRIES
	tableNameLen = 32 // XT_TABLE_MAXNAMELEN
	infoLen      = tableNameLen + 4*(1+5+5+1+1)
	entriesHead  = tableNameLen + 8 // struct ipt_get_entries up to its entries, which are 8-byte aligned

	// In struct ipt_entry (ip6t_entry) after the IP part and nfcache: target_offset, next_offset, both u16.
	targetOffset4, targetOffset6 = 84 + 4, 136 + 4
	targetHead                   = 32 // struct xt_entry_target: u16 size, 29 bytes of name, revision
)

// legacyChains returns the names of the user-defined chains of a table of iptables-legacy in the calling thread's
// network namespace.
func legacyChains(family redirect.Family, table string) ([]string, error) {
	domain, level, offset := unix.AF_INET, unix.IPPROTO_IP, targetOffset4
	if family == redirect.IPv6 {
		domain, level, offset = unix.AF_INET6, unix.IPPROTO_IPV6, targetOffset6
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	info := make([]byte, infoLen)
	copy(info, table)
	if err := getsockopt(fd, level, soGetInfo, info); err != nil {
		return nil, err
	}
	size := binary.NativeEndian.Uint32(info[infoLen-4:])
	entries := make([]byte, entriesHead+int(size))
	copy(entries, table)
	binary.NativeEndian.PutUint32(entries[tableNameLen:], size)
	if err := getsockopt(fd, level, soGetEntries, entries); err != nil {
		return nil, err
	}
	return chainNames(entries[entriesHead:], offset)
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

// chainNames walks the entries of a table. A user-defined chain begins with an entry whose target is called ERROR and
// whose data is the name of the chain; the very last ERROR closes the table.
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

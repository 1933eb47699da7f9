package testnet

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// answer is what a stand-in sends to a client.
type answer struct {
	landing            Landing
	local, remote, dst netip.AddrPort
}

// String is the line on the wire.
func (a answer) String() string {
	return fmt.Sprintf("WHO %s local=%s remote=%s dst=%s\n", a.landing, a.local, a.remote, a.dst)
}

// parseAnswer parses such a line.
func parseAnswer(line string) (a answer, err error) {
	fields := strings.Fields(line)
	if len(fields) != 5 || fields[0] != "WHO" {
		return a, fmt.Errorf("reading answer %q: not one of a stand-in", line)
	}
	a.landing = Landing(fields[1])
	for i, target := range []*netip.AddrPort{&a.local, &a.remote, &a.dst} {
		_, value, _ := strings.Cut(fields[2+i], "=")
		if value == "invalid AddrPort" {
			continue
		}
		if *target, err = netip.ParseAddrPort(value); err != nil {
			return a, fmt.Errorf("reading answer %q: %w", line, err)
		}
	}
	return a, nil
}

// soOriginalDst is SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST, which have the same value
// (include/uapi/linux/netfilter_ipv4.h, include/uapi/linux/netfilter_ipv6/ip6_tables.h).
const soOriginalDst = 80

// originalDst returns the connection's destination before DNAT, as conntrack knows it.
func originalDst(fd int, local netip.Addr) (netip.AddrPort, error) {
	level := unix.SOL_IP
	if local.Is6() {
		level = unix.SOL_IPV6
	}
	var raw [unix.SizeofSockaddrInet6]byte
	size := uint32(len(raw))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), soOriginalDst,
		uintptr(unsafe.Pointer(&raw)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return netip.AddrPort{}, fmt.Errorf("asking for the original destination: %w", errno)
	}
	port := binary.BigEndian.Uint16(raw[2:])
	if local.Is6() {
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(raw[8:24])), port), nil
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(raw[4:8])), port), nil
}

// answer answers all queued datagrams, each from the address to which it was sent. It calls hear before each answer.
func (e *endpoint) answer(hear func(question []byte, a answer)) {
	var question, oob [256]byte
	for {
		n, oobn, _, from, err := unix.Recvmsg(e.fd, question[:], oob[:], 0)
		if err != nil {
			return
		}
		a := answer{landing: e.landing, remote: addrPort(from)}
		cmsgs, _ := unix.ParseSocketControlMessage(oob[:oobn])
		var source []byte
		for _, cmsg := range cmsgs {
			a.local, source = pktinfo(cmsg, e.port)
		}
		a.dst = a.local
		hear(question[:n], a)
		fd := e.fd
		if _, as, found := strings.Cut(strings.TrimSpace(string(question[:n])), "as="); found && e.replies[as] != 0 {
			fd = e.replies[as]
		}
		_, _ = unix.SendmsgN(fd, []byte(a.String()), source, from, 0)
	}
}

// pktinfo returns the address to which a datagram was sent, and the control message to answer from it (ip(7),
// IP_PKTINFO).
func pktinfo(cmsg unix.SocketControlMessage, port uint16) (netip.AddrPort, []byte) {
	switch {
	case cmsg.Header.Level == unix.SOL_IP && cmsg.Header.Type == unix.IP_PKTINFO:
		dst := [4]byte(cmsg.Data[8:12])
		return netip.AddrPortFrom(netip.AddrFrom4(dst), port), unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: dst})
	case cmsg.Header.Level == unix.SOL_IPV6 && cmsg.Header.Type == unix.IPV6_PKTINFO:
		dst := [16]byte(cmsg.Data[:16])
		return netip.AddrPortFrom(netip.AddrFrom16(dst), port), unix.PktInfo6(&unix.Inet6Pktinfo{Addr: dst})
	}
	return netip.AddrPort{}, nil
}

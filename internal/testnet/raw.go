package testnet

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// The flags of crafted TCP segments.
const (
	flagFIN = 0x01
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10
)

// invalid sends a SYN-ACK that answers nothing. A kernel that gets to see it answers with a reset, on which depends
// whether a late packet kills a connection; where conntrack's INVALID packets are dropped, nothing comes back.
func (l *Lab) invalid(f Flow, family Family, silent int) Outcome {
	t, err := l.threadOf(f.From, l.settings)
	if err != nil {
		return failure(err)
	}
	from := netip.AddrPortFrom(Peer.Addr(family), 0)
	fd, err := t.socket(domain(from.Addr()), unix.SOCK_RAW, unix.IPPROTO_TCP)
	if err != nil {
		return failure(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, sockaddr(from)); err != nil {
		return failure(err)
	}
	// The port tells the answer from those to other flows. Below the ephemeral range nobody else has it.
	from = netip.AddrPortFrom(from.Addr(), uint16(20000+unix.Getpid()%1000))
	to := netip.AddrPortFrom(f.To.Addr(family), f.Port)
	if err := unix.Sendto(fd, segment(from, to, flagSYN|flagACK), 0,
		sockaddr(netip.AddrPortFrom(to.Addr(), 0))); err != nil {
		return failure(err)
	}
	_, err = l.sniff(fd, silent, func(seen sniffed) bool {
		return seen.srcPort == to.Port() && seen.dstPort == from.Port() && seen.flags&flagRST != 0
	})
	switch {
	case errors.Is(err, errSilence):
		return Outcome{Landed: Silence}
	case err != nil:
		return failure(err)
	}
	return Outcome{Landed: Reset}
}

// sniffed is a TCP segment that a raw socket has seen.
type sniffed struct {
	srcPort, dstPort uint16
	flags            byte
}

// sniff reads from a raw socket until a segment is the wanted one.
func (l *Lab) sniff(fd, silent int, wanted func(sniffed) bool) (seen sniffed, err error) {
	var packet [256]byte
	err = l.rounds.until(silent, func() (bool, error) {
		for {
			n, sender, err := unix.Recvfrom(fd, packet[:], 0)
			if errors.Is(err, unix.EAGAIN) {
				return false, nil
			}
			if err != nil {
				return true, err
			}
			tcp := packet[:n]
			if _, v4 := sender.(*unix.SockaddrInet4); v4 { // IPv4's raw sockets deliver the IP header, too
				tcp = tcp[min(int(tcp[0]&0xf)*4, n):]
			}
			if len(tcp) < 20 {
				continue
			}
			seen = sniffed{binary.BigEndian.Uint16(tcp), binary.BigEndian.Uint16(tcp[2:]), tcp[13]}
			if wanted(seen) {
				return true, nil
			}
		}
	})
	return seen, err
}

// segment is a TCP header without data.
func segment(from, to netip.AddrPort, flags byte) []byte {
	tcp := make([]byte, 20)
	binary.BigEndian.PutUint16(tcp, from.Port())
	binary.BigEndian.PutUint16(tcp[2:], to.Port())
	binary.BigEndian.PutUint32(tcp[4:], 1)
	binary.BigEndian.PutUint32(tcp[8:], 1)
	tcp[12], tcp[13] = 5<<4, flags
	binary.BigEndian.PutUint16(tcp[14:], 1024)
	binary.BigEndian.PutUint16(tcp[16:], checksum(from.Addr(), to.Addr(), tcp))
	return tcp
}

// checksum is TCP's, over the pseudo header and the segment (RFC 9293 3.1).
func checksum(from, to netip.Addr, tcp []byte) uint16 {
	data := append(from.AsSlice(), to.AsSlice()...)
	data = append(data, 0, unix.IPPROTO_TCP)
	data = binary.BigEndian.AppendUint16(data, uint16(len(tcp)))
	data = append(data, tcp...)
	sum := uint32(0)
	for i := 0; i < len(data); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(data[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

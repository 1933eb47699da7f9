package testnet

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"time"

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
func (l *Lab) invalid(f Flow, family Family, patience time.Duration) Outcome {
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
	if err := unix.Sendto(fd, segment(from, to, flagSYN|flagACK), 0, sockaddr(netip.AddrPortFrom(to.Addr(), 0))); err != nil {
		return failure(err)
	}
	for deadline := time.Now().Add(patience); ; {
		seen, err := sniff(fd, to.Port(), deadline)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return Outcome{Landed: Silence}
		case err != nil:
			return failure(err)
		case seen.dstPort == from.Port() && seen.flags&flagRST != 0:
			return Outcome{Landed: Reset}
		}
	}
}

// sniffed is a TCP segment that a raw socket has seen.
type sniffed struct {
	dstPort uint16
	flags   byte
}

// sniff reads from a raw socket until a segment comes from the port, or fails with os.ErrDeadlineExceeded.
func sniff(fd int, srcPort uint16, deadline time.Time) (sniffed, error) {
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return sniffed{}, os.ErrDeadlineExceeded
		}
		wait := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(wait, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return sniffed{}, err
		}
		var packet [256]byte
		n, sender, err := unix.Recvfrom(fd, packet[:], 0)
		if err != nil {
			continue
		}
		tcp := packet[:n]
		if _, v4 := sender.(*unix.SockaddrInet4); v4 { // IPv4's raw sockets deliver the IP header, too
			tcp = tcp[min(int(tcp[0]&0xf)*4, n):]
		}
		if len(tcp) >= 20 && binary.BigEndian.Uint16(tcp) == srcPort {
			return sniffed{binary.BigEndian.Uint16(tcp[2:]), tcp[13]}, nil
		}
	}
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

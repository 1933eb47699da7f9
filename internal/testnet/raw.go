package testnet

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/istio-pod-network/controller/internal/escape"
	"golang.org/x/sys/unix"
)

// Flags of crafted TCP segments.
const (
	flagFIN = 0x01
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10
)

// invalid sends a SYN-ACK without a connection. A kernel that receives it answers with a reset; whether it does decides
// whether a late packet ends a connection. If conntrack's INVALID packets are dropped, there is no answer.
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
	// The port identifies the answer. It is below the ephemeral range, so no other socket has it.
	from = netip.AddrPortFrom(from.Addr(), uint16(20000+unix.Getpid()%1000))
	to := netip.AddrPortFrom(f.To.Addr(family), f.Port)
	if err := unix.Sendto(fd, escape.Segment(from, to, flagSYN|flagACK), 0,
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

// sniffed is a TCP segment that a raw socket has received.
type sniffed struct {
	srcPort, dstPort uint16
	flags            byte
}

// sniff reads from a raw socket until wanted returns true for a segment.
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
			if _, v4 := sender.(*unix.SockaddrInet4); v4 { // raw sockets of IPv4 also deliver the IP header
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

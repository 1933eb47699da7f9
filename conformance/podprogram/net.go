package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds one call, so that one without an answer does not hold up the next for long.
const patience = 2 * time.Second

// sidecar stands in for Istio's proxy.
func sidecar(transparent bool) {
	go serveTCP(listen(":15001", false), "sidecar-outbound", originalDestination)
	inbound := originalDestination
	if transparent {
		inbound = destination
	}
	go serveTCP(listen(":15006", transparent), "sidecar-inbound", inbound)
	go serveTCP(listen(":15053", false), "sidecar-dns", originalDestination)
	go serveReady(listen(":15021", false))
	// where redirected packets arrive, and answers have to come from
	for _, address := range []string{"127.0.0.1", "::1"} {
		packets, err := net.ListenPacket("udp", net.JoinHostPort(address, "15053"))
		if err == nil {
			go answerUDP(packets, "sidecar-dns")
		} else if address == "127.0.0.1" { // the pod may be without IPv6
			fatal(err)
		}
	}
}

// listen opens a socket for both families. A transparent one also takes connections to addresses that are not the
// pod's.
func listen(address string, transparent bool) net.Listener {
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if !transparent {
			return nil
		}
		control := raw.Control(func(fd uintptr) {
			if err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1); err == nil {
				err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1)
			}
		})
		if control != nil {
			return control
		}
		return err
	}}
	l, err := c.Listen(context.Background(), "tcp", address)
	if err != nil {
		fatal(err)
	}
	return l
}

// serveTCP answers every connection with a name and the destination that the client had asked for, once the client has
// sent its line: closing a socket with something unread resets the connection, and a reset has to mean that something
// went wrong.
func serveTCP(l net.Listener, name string, asked func(*net.TCPConn) string) {
	for {
		c, err := l.Accept()
		if err != nil {
			fatal(err)
		}
		go func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(patience))
			if _, err := bufio.NewReader(c).ReadString('\n'); err == nil {
				fmt.Fprintln(c, name, asked(c.(*net.TCPConn)))
			}
		}()
	}
}

// serveReady answers the kubelet's probes, which Istio's injector sends to this port.
func serveReady(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			fatal(err)
		}
		go func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(patience))
			for lines := bufio.NewReader(c); ; {
				if line, err := lines.ReadString('\n'); err != nil || strings.TrimSpace(line) == "" {
					break
				}
			}
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		}()
	}
}

// answerUDP answers every packet with a name.
func answerUDP(packets net.PacketConn, name string) {
	buffer := make([]byte, 512)
	for {
		_, from, err := packets.ReadFrom(buffer)
		if err != nil {
			fatal(err)
		}
		_, _ = packets.WriteTo([]byte(name+"\n"), from)
	}
}

// destination is where a connection arrived, which for one that was not translated is where it was sent.
func destination(c *net.TCPConn) string {
	address := c.LocalAddr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(address.Addr().Unmap(), address.Port()).String()
}

// originalDestination is SO_ORIGINAL_DST of a connection (linux/netfilter_ipv4.h, netfilter_ipv6/ip6_tables.h), or an
// error's text.
func originalDestination(c *net.TCPConn) string {
	raw, err := c.SyscallConn()
	if err != nil {
		return err.Error()
	}
	var text string
	err = raw.Control(func(fd uintptr) {
		if c.LocalAddr().(*net.TCPAddr).IP.To4() != nil {
			text = original4(int(fd))
		} else {
			text = original6(int(fd))
		}
	})
	if err != nil {
		return err.Error()
	}
	return text
}

const soOriginalDst = 80

// original4 reads a struct sockaddr_in, which has the 16 bytes that this call is made for; the two first say the
// family.
func original4(fd int) string {
	address, err := unix.GetsockoptIPv6Mreq(fd, unix.SOL_IP, soOriginalDst)
	if err != nil {
		return err.Error()
	}
	b := address.Multiaddr
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:4])).String()
}

// original6 reads a struct sockaddr_in6, with which what this call is made for begins.
func original6(fd int) string {
	info, err := unix.GetsockoptIPv6MTUInfo(fd, unix.SOL_IPV6, soOriginalDst)
	if err != nil {
		return err.Error()
	}
	port := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, info.Addr.Port))
	return netip.AddrPortFrom(netip.AddrFrom16(info.Addr.Addr), port).String()
}

// call calls an address once, says who calls, and prints what it hears. It returns whether that is an answer.
func call(target, name string) bool {
	network, address, _ := strings.Cut(target, ":")
	answer, err := ask(network, address, name)
	if err != nil {
		fmt.Println(target, "error", err)
		return false
	}
	fmt.Println(target, "answer", strings.TrimSpace(answer))
	return true
}

func ask(network, address, name string) (string, error) {
	c, err := net.DialTimeout(network, address, patience)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintln(c, name); err != nil {
		return "", err
	}
	if network == "udp" {
		buffer := make([]byte, 512)
		n, err := c.Read(buffer)
		return string(buffer[:n]), err
	}
	answer, err := io.ReadAll(c)
	if len(answer) == 0 && err == nil {
		err = io.ErrUnexpectedEOF
	}
	return string(answer), err
}

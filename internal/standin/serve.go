package standin

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Patience limits one call, so that one without an answer does not delay the next for long.
const Patience = 2 * time.Second

// patience is Patience; tests in which every call is answered have more.
var patience = Patience

// serverPatience limits a connection at its server. It is longer, because only the caller knows how long it waits: a
// server on a busy node must not hang up before.
const serverPatience = time.Minute

// Listen opens a TCP listener for both families. With transparent it also accepts connections to addresses that the pod
// does not have (ip(7), IP_TRANSPARENT).
func Listen(port uint16, transparent bool) (net.Listener, error) {
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
	return c.Listen(context.Background(), "tcp", fmt.Sprint(":", port))
}

// Asked returns a connection's original destination.
type Asked func(*net.TCPConn) string

// Serve answers every connection with the name and the original destination, after the client has sent its line:
// closing a socket with unread data resets the connection, and a reset has to mean a failure. It returns when the
// listener fails.
func Serve(l net.Listener, name string, asked Asked) error {
	return ServeCallers(l, func(c *net.TCPConn, _ string) string { return name + " " + asked(c) })
}

// ServeCallers answers every connection with the text that answer returns for it and for the client's line.
func ServeCallers(l net.Listener, answer func(c *net.TCPConn, caller string) string) error {
	return accept(l, func(c *net.TCPConn) {
		if line, err := bufio.NewReader(c).ReadString('\n'); err == nil {
			fmt.Fprintln(c, answer(c, strings.TrimSpace(line)))
		}
	})
}

// accept calls serve for each connection, with a deadline.
func accept(l net.Listener, serve func(*net.TCPConn)) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(serverPatience))
			serve(c.(*net.TCPConn))
		}()
	}
}

// ServeUDP answers every packet for which answer returns a text. It returns when reading fails.
func ServeUDP(packets net.PacketConn, answer func(text string) string) error {
	buffer := make([]byte, 512)
	for {
		n, from, err := packets.ReadFrom(buffer)
		if err != nil {
			return err
		}
		if text := answer(strings.TrimSpace(string(buffer[:n]))); text != "" {
			_, _ = packets.WriteTo([]byte(text+"\n"), from)
		}
	}
}

// Destination returns the local address of a connection: its original destination, if there was no DNAT.
func Destination(c *net.TCPConn) string {
	address := c.LocalAddr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(address.Addr().Unmap(), address.Port()).String()
}

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

// Patience bounds one call, so that one without an answer does not hold up the next for long.
const Patience = 2 * time.Second

// Listen opens a TCP socket for both families. A transparent one also takes connections to addresses that are not the
// pod's.
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

// Asked says where a client wanted to go.
type Asked func(*net.TCPConn) string

// Serve answers every connection with a name and the destination that the client had asked for, once the client has
// sent its line: closing a socket with something unread resets the connection, and a reset has to mean that something
// went wrong. It returns when no connection can be accepted any more.
func Serve(l net.Listener, name string, asked Asked) error {
	return ServeCallers(l, func(c *net.TCPConn, _ string) string { return name + " " + asked(c) })
}

// ServeCallers answers every connection with what answer makes of it and of the line that the client has sent.
func ServeCallers(l net.Listener, answer func(c *net.TCPConn, caller string) string) error {
	return accept(l, func(c *net.TCPConn) {
		if line, err := bufio.NewReader(c).ReadString('\n'); err == nil {
			fmt.Fprintln(c, answer(c, strings.TrimSpace(line)))
		}
	})
}

// accept has each connection served, for a while.
func accept(l net.Listener, serve func(*net.TCPConn)) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(Patience))
			serve(c.(*net.TCPConn))
		}()
	}
}

// ServeUDP answers every packet that answer has an answer to. It returns when none can be read any more.
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

// Destination is where a connection arrived, which for one that was not translated is where it was sent.
func Destination(c *net.TCPConn) string {
	address := c.LocalAddr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(address.Addr().Unmap(), address.Port()).String()
}

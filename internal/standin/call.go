package standin

import (
	"cmp"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Call is one call to a server.
type Call struct {
	Network, Address string // as in net.Dial: tcp or udp
	Name             string // the caller's name
	Seal             Seal
	// Patience, if not 0, is the time for the connection, and then for the answer, instead of the constant.
	Patience time.Duration
	// Hops, if not 0, is the hop limit of its packets: with 1 they do not leave the node.
	Hops int
}

// Make makes the call and returns the answer.
func (c Call) Make() (answer string, err error) {
	line, nonce := c.Seal.call(c.Name)
	if answer, err = c.send(line); answer == "" && err != nil {
		return "", err
	}
	answer, wrong := c.Seal.answered(nonce, answer)
	return answer, cmp.Or(wrong, err)
}

// send sends a line and returns the line that comes back.
func (c Call) send(line string) (answer string, err error) {
	patience := cmp.Or(c.Patience, patience)
	dialer := net.Dialer{Timeout: patience, Control: c.limit}
	conn, err := dialer.Dial(c.Network, c.Address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintln(conn, line); err != nil {
		return "", err
	}
	var data []byte
	if strings.HasPrefix(c.Network, "udp") {
		data = make([]byte, 512)
		n, err := conn.Read(data)
		return strings.TrimSpace(string(data[:n])), err
	}
	data, err = io.ReadAll(conn)
	if len(data) == 0 && err == nil {
		err = io.ErrUnexpectedEOF
	}
	return strings.TrimSpace(string(data)), err
}

// limit sets the hop limit of a socket.
func (c Call) limit(network, _ string, raw syscall.RawConn) (err error) {
	if c.Hops == 0 {
		return nil
	}
	control := raw.Control(func(fd uintptr) {
		if strings.HasSuffix(network, "6") {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_UNICAST_HOPS, c.Hops)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TTL, c.Hops)
		}
	})
	if control != nil {
		return control
	}
	return err
}

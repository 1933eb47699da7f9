package netlink

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Join adds the socket to a multicast group.
func (c *Conn) Join(group int) error {
	if err := unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
		return fmt.Errorf("joining the netlink group %d: %w", group, err)
	}
	return nil
}

// Hear passes each message to handle until handle returns true, or until the given time; it then returns false. It
// still passes on what the kernel has sent before that time, but waits no longer, and a message of another sender then
// ends it. data is valid until handle returns.
func (c *Conn) Hear(until time.Time, handle func(kind uint16, data []byte) (enough bool)) (bool, error) {
	c.until = until
	for {
		left := time.Until(until)
		limit := unix.NsecToTimeval(max(left, time.Millisecond).Nanoseconds()) // 0 would mean no timeout
		err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
		if err == nil {
			err = unix.SetNonblock(c.fd, left <= 0)
		}
		if err != nil {
			return false, fmt.Errorf("preparing a netlink socket: %w", err)
		}
		enough, err := c.receive(func(a answer) (bool, error) { return handle(a.kind, a.data), nil })
		if errors.Is(err, unix.EAGAIN) {
			return false, nil
		}
		if enough || err != nil {
			return enough, err
		}
	}
}

package netlink

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Join has the socket hear what the kernel tells a group.
func (c *Conn) Join(group int) error {
	if err := unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
		return fmt.Errorf("joining the netlink group %d: %w", group, err)
	}
	return nil
}

// Hear hands each message to handle until that has enough, or until a time, when there is no more: then it returns
// false. What the kernel has sent by then is handed over, however late that is; after that nothing is waited for, and
// what somebody else sends ends it. Data is valid until handle returns.
func (c *Conn) Hear(until time.Time, handle func(kind uint16, data []byte) (enough bool)) (bool, error) {
	c.until = until
	for {
		left := time.Until(until)
		limit := unix.NsecToTimeval(max(left, time.Millisecond).Nanoseconds()) // 0 would be without limit
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

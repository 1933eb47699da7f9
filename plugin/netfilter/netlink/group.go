package netlink

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Join has the socket hear what the kernel tells a group.
func (c *Conn) Join(group int) error {
	if err := unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("binding a netlink socket: %w", err)
	}
	if err := unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
		return fmt.Errorf("joining the netlink group %d: %w", group, err)
	}
	return nil
}

// Hear hands each message to handle until that has enough, or until a time, when there is no more: then it returns
// false. What has come by then is handed over, however late that is. Data is valid until handle returns.
func (c *Conn) Hear(until time.Time, handle func(kind uint16, data []byte) (enough bool)) (bool, error) {
	for {
		limit := unix.NsecToTimeval(max(time.Until(until), time.Millisecond).Nanoseconds()) // 0 would be without limit
		if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
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

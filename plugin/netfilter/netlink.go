package netfilter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// nlConn is a netlink(7) socket of the network namespace that the calling thread was in when it was opened. Its calls
// block: with a poller between, half the time of an ADD would be spent waking threads.
type nlConn struct {
	fd     int
	seq    uint32
	buffer []byte
}

// nlMessage is one request: type, flags beside NLM_F_REQUEST, and what follows the header.
type nlMessage struct {
	kind, flags uint16
	data        []byte
}

const (
	// netlinkTimeout in seconds bounds the wait for an answer; the kernel has it ready when the send returns.
	netlinkTimeout = 10
	// receiveSize is more than the kernel puts into one datagram (NLMSG_GOODSIZE, at most 32 KiB).
	receiveSize = 64 << 10
	// defaultSendBuffer is what a socket can send at once without more ado: net.core.wmem_default less its overhead.
	defaultSendBuffer = 160 << 10
)

func dialNetlink(protocol int) (*nlConn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("opening a netlink socket: %w", err)
	}
	c := &nlConn{fd: fd, buffer: make([]byte, receiveSize)}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: netlinkTimeout}); err != nil {
		c.close()
		return nil, fmt.Errorf("preparing a netlink socket: %w", err)
	}
	// The kernel's own words beside the number, Linux 4.12; without them an error is merely less clear.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return c, nil
}

func (c *nlConn) close() { _ = unix.Close(c.fd) }

// send writes the messages in one datagram and returns the sequence number of the first; they are numbered from there.
func (c *nlConn) send(messages ...nlMessage) (first uint32, err error) {
	first = c.seq + 1
	var out []byte
	for _, m := range messages {
		c.seq++
		out = binary.NativeEndian.AppendUint32(out, uint32(unix.NLMSG_HDRLEN+len(m.data)))
		out = binary.NativeEndian.AppendUint16(out, m.kind)
		out = binary.NativeEndian.AppendUint16(out, m.flags|unix.NLM_F_REQUEST)
		out = binary.NativeEndian.AppendUint32(out, c.seq)
		out = binary.NativeEndian.AppendUint32(out, 0)
		out = append(append(out, m.data...), padding(len(m.data))...)
	}
	if len(out) > defaultSendBuffer {
		// The kernel refuses a datagram over SO_SNDBUF.
		if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 2*len(out)); err != nil {
			return first, fmt.Errorf("sizing the netlink socket to %d bytes: %w", len(out), err)
		}
	}
	if err := unix.Sendto(c.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return first, fmt.Errorf("sending to the kernel: %w", err)
	}
	return first, nil
}

// receive hands every message of one datagram to handle until it says done.
func (c *nlConn) receive(handle func(kind, flags uint16, seq uint32, data []byte) (done bool, err error)) (done bool, err error) {
	n, _, err := unix.Recvfrom(c.fd, c.buffer, 0)
	for errors.Is(err, unix.EINTR) {
		n, _, err = unix.Recvfrom(c.fd, c.buffer, 0)
	}
	if err != nil {
		return false, &receiveError{err}
	}
	for rest := c.buffer[:n]; len(rest) >= unix.NLMSG_HDRLEN; {
		size := int(binary.NativeEndian.Uint32(rest))
		if size < unix.NLMSG_HDRLEN || size > len(rest) {
			return false, &receiveError{fmt.Errorf("message of %d bytes in %d", size, len(rest))}
		}
		kind, flags := binary.NativeEndian.Uint16(rest[4:]), binary.NativeEndian.Uint16(rest[6:])
		done, err := handle(kind, flags, binary.NativeEndian.Uint32(rest[8:]), rest[unix.NLMSG_HDRLEN:size])
		if done || err != nil {
			return done, err
		}
		rest = rest[min(len(rest), size+len(padding(size))):]
	}
	return false, nil
}

// receiveError says that the kernel's answer did not arrive, so that it is not known what it did.
type receiveError struct{ err error }

func (e *receiveError) Error() string { return fmt.Sprintf("receiving from the kernel: %v", e.err) }
func (e *receiveError) Unwrap() error { return e.err }

// await waits for the acknowledgement of message last. An error names the message, by its place after first, that the
// kernel refused.
func (c *nlConn) await(first, last uint32) (refused int, err error) {
	for {
		done, err := c.receive(func(kind, _ uint16, seq uint32, data []byte) (bool, error) {
			if kind != unix.NLMSG_ERROR {
				return false, nil
			}
			if err := messageError(data); err != nil {
				refused = int(seq - first)
				return true, err
			}
			return seq == last, nil
		})
		if done || err != nil {
			return refused, err
		}
	}
}

// execute sends one message and waits for its acknowledgement.
func (c *nlConn) execute(m nlMessage) error {
	m.flags |= unix.NLM_F_ACK
	seq, err := c.send(m)
	if err == nil {
		_, err = c.await(seq, seq)
	}
	return err
}

// dump sends one message and returns what every reply carries. A list that changed meanwhile is asked for again.
func (c *nlConn) dump(m nlMessage) ([][]byte, error) {
	const attempts = 10
	m.flags |= unix.NLM_F_DUMP
	for range attempts {
		replies, whole, err := c.dumpOnce(m)
		if whole || err != nil {
			return replies, err
		}
	}
	return nil, errors.New("listing kernel objects: they change all the time")
}

func (c *nlConn) dumpOnce(m nlMessage) (replies [][]byte, whole bool, err error) {
	if _, err := c.send(m); err != nil {
		return nil, false, err
	}
	whole = true
	for done := false; !done && err == nil; {
		done, err = c.receive(func(kind, flags uint16, seq uint32, data []byte) (bool, error) {
			if seq != c.seq {
				return false, nil // the rest of an interrupted list
			}
			if flags&unix.NLM_F_DUMP_INTR != 0 {
				whole = false
			}
			switch kind {
			case unix.NLMSG_ERROR:
				return true, messageError(data)
			case unix.NLMSG_DONE:
				return true, messageError(data)
			}
			replies = append(replies, append([]byte(nil), data...))
			return false, nil
		})
	}
	return replies, whole, err
}

// messageError reads struct nlmsgerr, or the number that ends a list; nil if it is 0.
func messageError(data []byte) error {
	if len(data) < 4 {
		return nil
	}
	errno := unix.Errno(-int32(binary.NativeEndian.Uint32(data)))
	if errno == 0 {
		return nil
	}
	const nlmsgerr = 4 + unix.NLMSG_HDRLEN // then, with NETLINK_CAP_ACK, attributes
	if len(data) > nlmsgerr {
		if attrs, err := parseAttrs(data[nlmsgerr:]); err == nil && len(attrs[unix.NLMSGERR_ATTR_MSG]) > 0 {
			return fmt.Errorf("%w (%s)", errno, strings.TrimRight(string(attrs[unix.NLMSGERR_ATTR_MSG]), "\x00"))
		}
	}
	return errno
}

// padding returns the zeros that align n bytes to 4.
func padding(n int) []byte { return make([]byte, -n&3) }

// attr appends a netlink attribute.
func attr(out []byte, kind uint16, data []byte) []byte {
	out = binary.NativeEndian.AppendUint16(out, uint16(unix.SizeofNlAttr+len(data)))
	out = binary.NativeEndian.AppendUint16(out, kind)
	return append(append(out, data...), padding(len(data))...)
}

// nested appends an attribute that holds attributes.
func nested(out []byte, kind uint16, data []byte) []byte {
	return attr(out, kind|unix.NLA_F_NESTED, data)
}

// parseAttrs reads attributes by type, the nested flag aside.
func parseAttrs(data []byte) (map[uint16][]byte, error) {
	attrs := map[uint16][]byte{}
	err := eachAttr(data, func(kind uint16, value []byte) { attrs[kind] = value })
	return attrs, err
}

func eachAttr(data []byte, f func(kind uint16, value []byte)) error {
	for len(data) >= unix.SizeofNlAttr {
		size := int(binary.NativeEndian.Uint16(data))
		if size < unix.SizeofNlAttr || size > len(data) {
			return fmt.Errorf("netlink attribute of %d bytes in %d", size, len(data))
		}
		f(binary.NativeEndian.Uint16(data[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), data[unix.SizeofNlAttr:size])
		data = data[min(len(data), size+len(padding(size))):]
	}
	return nil
}

package netlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Conn is a netlink socket in the network namespace of the thread that opened it. Its calls block: with Go's poller,
// half the time of an ADD would be spent on waking threads.
type Conn struct {
	// Limit is how many bytes its dumps may still have in total. Whoever can write to a network namespace could
	// otherwise fill it until a reader runs out of memory.
	Limit  int
	fd     int
	seq    uint32
	until  time.Time // until when messages of other senders are ignored
	buffer []byte
}

// Message is one request.
type Message struct {
	Kind, Flags uint16 // NLM_F_REQUEST is added to Flags
	Header      []byte // the fixed part after struct nlmsghdr
	Attributes  []Attribute
}

const (
	// timeout in seconds limits the wait for an answer, which the kernel has ready when send returns. It also limits
	// how long messages of other senders can delay that answer.
	timeout = 10
	// receiveSize is more than the kernel puts into one datagram (NLMSG_GOODSIZE, at most 32 KiB).
	receiveSize = 64 << 10
	// perObject is what an object of a dump costs in memory beside its bytes.
	perObject = 128
	// defaultSendBuffer is how many bytes a socket can send without a larger buffer: net.core.wmem_default, less
	// overhead.
	defaultSendBuffer = 160 << 10
)

// Limit is the initial limit of a connection. It is enough for 30,000 rules of iptables-nft, which need the most bytes.
const Limit = 16 << 20

// ErrSocket is the error if a socket could not be opened. It does not depend on the network namespace.
var ErrSocket = errors.New("opening a netlink socket")

// Dial opens a socket of a protocol, NETLINK_…. It is connected to the kernel, so that other processes cannot send to
// it. The error wraps ErrSocket.
func Dial(protocol int) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSocket, err)
	}
	c := &Conn{Limit: Limit, fd: fd, buffer: make([]byte, receiveSize)}
	err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: timeout})
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("%w: %w", ErrSocket, err)
	}
	// Extended acknowledgements have the kernel's error text, since Linux 4.12. Without them an error is only less
	// clear.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return c, nil
}

// Close releases the socket.
func (c *Conn) Close() { _ = unix.Close(c.fd) }

// Execute sends one message and waits for its acknowledgement. If the kernel refuses it, the error wraps a unix.Errno.
func (c *Conn) Execute(m Message) error {
	_, err := c.Batch([]Message{m}, 0)
	return err
}

// Batch sends the messages in one datagram and waits for the acknowledgement of messages[acked]. refused is the index
// of the message that the kernel refused or that could not be encoded, and -1 for any other error.
func (c *Conn) Batch(messages []Message, acked int) (refused int, err error) {
	first := c.seq + 1
	if refused, err := c.send(messages, acked); err != nil {
		return refused, err
	}
	return c.await(first, first+uint32(acked))
}

// send writes the messages in one datagram. Their sequence numbers continue those of the last one.
func (c *Conn) send(messages []Message, acked int) (refused int, err error) {
	var out []byte
	for i, m := range messages {
		attributes, err := encode(m.Attributes)
		if err != nil {
			return i, fmt.Errorf("encoding a netlink message: %w", err)
		}
		if i == acked {
			m.Flags |= unix.NLM_F_ACK
		}
		c.seq++
		out = binary.NativeEndian.AppendUint32(out, uint32(unix.NLMSG_HDRLEN+len(m.Header)+len(attributes)))
		out = binary.NativeEndian.AppendUint16(out, m.Kind)
		out = binary.NativeEndian.AppendUint16(out, m.Flags|unix.NLM_F_REQUEST)
		out = binary.NativeEndian.AppendUint32(out, c.seq)
		out = binary.NativeEndian.AppendUint32(out, 0)
		out = append(append(out, m.Header...), attributes...) // both are multiples of 4 bytes long
	}
	if len(out) > defaultSendBuffer {
		// The kernel refuses a datagram larger than SO_SNDBUF.
		if err := unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 2*len(out)); err != nil {
			return -1, fmt.Errorf("sizing the netlink socket to %d bytes: %w", len(out), err)
		}
	}
	if _, err := unix.Write(c.fd, out); err != nil {
		return -1, fmt.Errorf("sending to the kernel: %w", err)
	}
	c.until = time.Now().Add(timeout * time.Second)
	return -1, nil
}

// answer is one message from the kernel.
type answer struct {
	kind, flags uint16
	seq         uint32
	data        []byte // valid until the next datagram is received
}

// receive passes every message of one datagram to handle, until handle returns true.
func (c *Conn) receive(handle func(answer) (done bool, err error)) (done bool, err error) {
	n, sender, err := c.datagram()
	if err != nil {
		return false, &LostError{err}
	}
	if sender != 0 {
		// A process with CAP_NET_ADMIN in the namespace has sent it: to a multicast group, or before the socket was
		// connected.
		if time.Now().After(c.until) {
			return false, &LostError{unix.EAGAIN}
		}
		return false, nil
	}
	for rest := c.buffer[:n]; len(rest) >= unix.NLMSG_HDRLEN; {
		size := int(binary.NativeEndian.Uint32(rest))
		if size < unix.NLMSG_HDRLEN || size > len(rest) {
			return false, &LostError{fmt.Errorf("message of %d bytes in %d", size, len(rest))}
		}
		done, err := handle(answer{
			kind: binary.NativeEndian.Uint16(rest[4:]), flags: binary.NativeEndian.Uint16(rest[6:]),
			seq: binary.NativeEndian.Uint32(rest[8:]), data: rest[unix.NLMSG_HDRLEN:size],
		})
		if done || err != nil {
			return done, err
		}
		rest = rest[min(len(rest), (size+3)&^3):]
	}
	return false, nil
}

// datagram receives one datagram into the buffer, and returns its sender's port; the kernel's is 0. unix.Recvfrom
// handles the addresses of all protocols and would add 30 kB to the plugin.
func (c *Conn) datagram() (size int, sender uint32, err error) {
	var from unix.RawSockaddrNetlink
	for {
		length := uint32(unix.SizeofSockaddrNetlink)
		n, _, errno := unix.Syscall6(unix.SYS_RECVFROM, uintptr(c.fd), uintptr(unsafe.Pointer(&c.buffer[0])),
			uintptr(len(c.buffer)), 0, uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&length)))
		switch {
		case errno == 0:
			return int(n), from.Pid, nil
		case errno != unix.EINTR:
			return 0, 0, errno
		}
	}
}

// LostError is an error of receiving the kernel's answer.
type LostError struct{ Err error }

func (e *LostError) Error() string { return fmt.Sprintf("receiving from the kernel: %v", e.Err) }

// Unwrap returns the cause.
func (e *LostError) Unwrap() error { return e.Err }

// IsLost reports whether err says that the kernel's answer did not arrive. It is then unknown what the kernel did.
func IsLost(err error) bool {
	var lost *LostError
	return errors.As(err, &lost)
}

// await waits for the acknowledgement of message last. refused is counted from first.
func (c *Conn) await(first, last uint32) (refused int, err error) {
	refused = -1
	for done := false; !done && err == nil; {
		done, err = c.receive(func(a answer) (bool, error) {
			if a.kind != unix.NLMSG_ERROR {
				return false, nil
			}
			if err := refusal(a.data); err != nil {
				refused = int(a.seq - first)
				return true, err
			}
			return a.seq == last, nil
		})
	}
	return refused, err
}

// Dump sends one request and returns the contents of every reply. It repeats a dump that a change has interrupted.
func (c *Conn) Dump(m Message) ([][]byte, error) {
	const attempts = 10
	m.Flags |= unix.NLM_F_DUMP
	for range attempts {
		replies, whole, err := c.dumpOnce(m)
		if whole || err != nil {
			return replies, err
		}
	}
	return nil, errors.New("listing kernel objects: they change all the time")
}

func (c *Conn) dumpOnce(m Message) (replies [][]byte, whole bool, err error) {
	if _, err := c.send([]Message{m}, -1); err != nil {
		return nil, false, err
	}
	whole = true
	left := c.Limit
	for done := false; !done && err == nil; {
		done, err = c.receive(func(a answer) (bool, error) {
			if a.seq != c.seq {
				return false, nil // the rest of an interrupted dump
			}
			if a.flags&unix.NLM_F_DUMP_INTR != 0 {
				whole = false
			}
			if a.kind == unix.NLMSG_ERROR || a.kind == unix.NLMSG_DONE {
				return true, refusal(a.data)
			}
			if left -= len(a.data) + perObject; left < 0 {
				return true, fmt.Errorf("the first %d come to the limit of %d bytes", len(replies), c.Limit)
			}
			replies = append(replies, append([]byte(nil), a.data...))
			return false, nil
		})
	}
	if whole {
		c.Limit = left
	}
	return replies, whole, err
}

// refusal reads the error of struct nlmsgerr, or the status at the end of a dump; nil if it is 0.
func refusal(data []byte) error {
	if len(data) < 4 {
		return nil
	}
	errno := unix.Errno(-int32(binary.NativeEndian.Uint32(data)))
	if errno == 0 {
		return nil
	}
	const nlmsgerr = 4 + unix.NLMSG_HDRLEN // with NETLINK_CAP_ACK, attributes follow
	if len(data) > nlmsgerr {
		if text := Find(data[nlmsgerr:], unix.NLMSGERR_ATTR_MSG); len(text) > 0 {
			return fmt.Errorf("%w (%s)", errno, strings.TrimRight(string(text), "\x00"))
		}
	}
	return errno
}

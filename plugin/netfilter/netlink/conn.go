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

// Conn is a socket of the network namespace that the calling thread was in when it was opened. Its calls block: with a
// poller between, half the time of an ADD would be spent waking threads.
type Conn struct {
	// Limit is how many bytes its lists may come to from now on. Whoever may write to a network namespace could fill it
	// until a reader without a limit has no memory left.
	Limit  int
	fd     int
	seq    uint32
	until  time.Time // how long what others send is put up with
	buffer []byte
}

// Message is one request.
type Message struct {
	Kind, Flags uint16 // NLM_F_REQUEST goes without saying
	Header      []byte // the fixed part of such a message
	Attributes  []Attribute
}

const (
	// timeout in seconds bounds the wait for an answer, which the kernel has ready when the send returns; and once more
	// how long others may keep whoever waits from it.
	timeout = 10
	// receiveSize is more than the kernel puts into one datagram (NLMSG_GOODSIZE, at most 32 KiB).
	receiveSize = 64 << 10
	// perObject is what an object of a list costs beside its own bytes.
	perObject = 128
	// defaultSendBuffer is what a socket can send at once without more ado: net.core.wmem_default less its overhead.
	defaultSendBuffer = 160 << 10
)

// Limit is that of a new connection: of iptables-nft, which takes the most, 30,000 rules.
const Limit = 16 << 20

// ErrSocket is the error of a socket that could not be had, whoever the network namespace belongs to.
var ErrSocket = errors.New("opening a netlink socket")

// Dial opens a socket of a protocol, NETLINK_…. It is connected to the kernel: what a process sends to it is refused.
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
	// The kernel's own words beside the number, Linux 4.12; without them an error is merely less clear.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return c, nil
}

// Close releases the socket.
func (c *Conn) Close() { _ = unix.Close(c.fd) }

// Execute sends one message and waits for its acknowledgement. The kernel's refusal is a unix.Errno.
func (c *Conn) Execute(m Message) error {
	_, err := c.Batch([]Message{m}, 0)
	return err
}

// Batch sends the messages in one datagram and waits for the acknowledgement of one of them, acked. Of an error of the
// kernel it names the message that was refused, and of one that cannot be encoded as well; -1 is none of them.
func (c *Conn) Batch(messages []Message, acked int) (refused int, err error) {
	first := c.seq + 1
	if refused, err := c.send(messages, acked); err != nil {
		return refused, err
	}
	return c.await(first, first+uint32(acked))
}

// send writes the messages in one datagram, numbered on from the last one sent.
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
		out = append(append(out, m.Header...), attributes...) // both are multiples of 4 bytes
	}
	if len(out) > defaultSendBuffer {
		// The kernel refuses a datagram over SO_SNDBUF.
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

// answer is one message of the kernel.
type answer struct {
	kind, flags uint16
	seq         uint32
	data        []byte // valid until the next datagram is received
}

// receive hands every message of one datagram to handle until it says done.
func (c *Conn) receive(handle func(answer) (done bool, err error)) (done bool, err error) {
	n, sender, err := c.datagram()
	if err != nil {
		return false, &LostError{err}
	}
	if sender != 0 {
		// A process with CAP_NET_ADMIN in the namespace has sent it, to a group, or before the socket was connected.
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

// datagram receives one into the buffer, and says what port sent it: 0 is the kernel's. By unix.Recvfrom, which knows
// the addresses of all protocols, the plugin would be 30 kB larger.
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

// LostError is a failure to receive.
type LostError struct{ Err error }

func (e *LostError) Error() string { return fmt.Sprintf("receiving from the kernel: %v", e.Err) }

// Unwrap returns what receiving failed with.
func (e *LostError) Unwrap() error { return e.Err }

// IsLost reports whether err says that the kernel's answer did not arrive, so that it is not known what it did.
func IsLost(err error) bool {
	var lost *LostError
	return errors.As(err, &lost)
}

// await waits for the acknowledgement of message last, numbering from first.
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

// Dump sends one message and returns what every reply carries. A list that changed meanwhile is asked for again.
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
				return false, nil // the rest of an interrupted list
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

// refusal reads struct nlmsgerr, or the number that ends a list; nil if it is 0.
func refusal(data []byte) error {
	if len(data) < 4 {
		return nil
	}
	errno := unix.Errno(-int32(binary.NativeEndian.Uint32(data)))
	if errno == 0 {
		return nil
	}
	const nlmsgerr = 4 + unix.NLMSG_HDRLEN // then, with NETLINK_CAP_ACK, attributes
	if len(data) > nlmsgerr {
		if text := Find(data[nlmsgerr:], unix.NLMSGERR_ATTR_MSG); len(text) > 0 {
			return fmt.Errorf("%w (%s)", errno, strings.TrimRight(string(text), "\x00"))
		}
	}
	return errno
}

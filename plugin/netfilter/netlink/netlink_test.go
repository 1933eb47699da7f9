package netlink

import (
	"encoding/binary"
	"errors"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestAttributes decodes what it has encoded. Encoding must fail for values that do not fit.
func TestAttributes(t *testing.T) {
	data, err := encode([]Attribute{
		Text(1, "lo"), Bytes(2, []byte{1, 2, 3}), Nested(3, Bytes(1, []byte{9}), Bytes(1, []byte{8, 7})),
	})
	if err != nil {
		t.Fatal(err)
	}
	if string(Find(data, 1)) != "lo\x00" || string(Find(data, 2)) != "\x01\x02\x03" || Find(data, 4) != nil ||
		len(data)%4 != 0 {
		t.Errorf("%v", data)
	}
	var inner []string
	if err := Each(Find(data, 3), func(_ uint16, value []byte) { inner = append(inner, string(value)) }); err != nil {
		t.Error(err)
	}
	if len(inner) != 2 || inner[0] != "\x09" || inner[1] != "\x08\x07" {
		t.Errorf("nested: %q", inner)
	}
	for name, attribute := range map[string]Attribute{
		"bytes": Bytes(1, make([]byte, 1<<16)), "text": Text(1, string(make([]byte, 1<<16))),
		"nested": Nested(1, Bytes(1, make([]byte, 40000)), Bytes(1, make([]byte, 40000))),
	} {
		if data, err := encode([]Attribute{attribute}); err == nil {
			t.Errorf("%s: %d bytes in one attribute", name, len(data))
		}
	}
	for _, torn := range [][]byte{data[:len(data)-2], data[:3], {200, 0, 1, 0, 5, 5, 5, 5}} {
		if err := Each(torn, func(uint16, []byte) {}); err == nil {
			t.Errorf("%q is read", torn)
		}
	}
}

// inOwnNamespace brings the test into a network namespace of its own, where nobody else adds interfaces.
func inOwnNamespace(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // it is never unlocked, so the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

func dial(t *testing.T) *Conn {
	t.Helper()
	c, err := Dial(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// link requests the interface with an index.
func link(index uint32, attributes ...Attribute) Message {
	header := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(header[4:], index)
	return Message{Kind: unix.RTM_GETLINK, Header: header, Attributes: attributes}
}

const lo, none = 1, 1 << 30

// TestBatch returns the index of the message that the kernel refuses, or that cannot be encoded.
func TestBatch(t *testing.T) {
	c := dial(t)
	for name, x := range map[string]struct {
		messages []Message
		refused  int
		want     error
	}{
		"accepted":      {[]Message{link(lo), link(lo), link(lo)}, -1, nil},
		"second":        {[]Message{link(lo), link(none), link(lo)}, 1, unix.ENODEV},
		"acknowledged":  {[]Message{link(lo), link(lo), link(none)}, 2, unix.ENODEV},
		"first of many": {[]Message{link(none), link(none), link(none)}, 0, unix.ENODEV},
	} {
		if refused, err := c.Batch(x.messages, 2); refused != x.refused || !errors.Is(err, x.want) || IsLost(err) {
			t.Errorf("%s: message %d, %v", name, refused, err)
		}
		c = dial(t) // the old socket still has answers that nobody has read
	}
	refused, err := c.Batch([]Message{link(lo), link(lo, Bytes(1, make([]byte, 1<<16)))}, 1)
	if refused != 1 || err == nil {
		t.Errorf("too long: message %d, %v", refused, err)
	}
	if err := c.Execute(link(lo)); err != nil {
		t.Errorf("after one that was not sent: %v", err)
	}
}

// TestDump lists the interfaces of a namespace.
func TestDump(t *testing.T) {
	inOwnNamespace(t)
	c := dial(t)
	replies, err := c.Dump(Message{Kind: unix.RTM_GETLINK, Header: make([]byte, unix.SizeofIfInfomsg)})
	if err != nil || len(replies) == 0 {
		t.Fatalf("%d replies, %v", len(replies), err)
	}
	if name := Find(replies[0][unix.SizeofIfInfomsg:], unix.IFLA_IFNAME); string(name) != "lo\x00" {
		t.Errorf("%q", name)
	}
}

// TestLimit checks that the limit covers all dumps of a connection, by the memory that they need, and that the error
// names it.
func TestLimit(t *testing.T) {
	inOwnNamespace(t)
	c := dial(t)
	links := Message{Kind: unix.RTM_GETLINK, Header: make([]byte, unix.SizeofIfInfomsg)}
	if _, err := c.Dump(links); err != nil {
		t.Fatal(err)
	}
	c.Limit = Limit - c.Limit // as much again
	if _, err := c.Dump(links); err != nil || c.Limit != 0 {
		t.Errorf("%d are left, %v", c.Limit, err)
	}
	c.Limit = perObject
	const want = "the first 0 come to the limit of 128 bytes"
	if replies, err := c.Dump(links); err == nil || err.Error() != want {
		t.Errorf("%d replies, %v; want %s", len(replies), err, want)
	}
}

// TestLost tells a lost answer from a refusal.
func TestLost(t *testing.T) {
	c := dial(t)
	if err := unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 1000}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.await(1, 1); !IsLost(err) {
		t.Error(err)
	}
}

// disconnect makes a socket accept messages of other processes, as between its creation and its connection.
func disconnect(t *testing.T, c *Conn) (name unix.Sockaddr) {
	t.Helper()
	var unspecified unix.RawSockaddrNetlink
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(c.fd), uintptr(unsafe.Pointer(&unspecified)),
		unsafe.Sizeof(unspecified))
	name, err := unix.Getsockname(c.fd)
	if errno != 0 || err != nil {
		t.Fatal(errno, err)
	}
	return name
}

// acknowledgement returns the acknowledgement of the first request.
func acknowledgement() []byte {
	message := binary.NativeEndian.AppendUint32(nil, unix.NLMSG_HDRLEN+4)
	message = binary.NativeEndian.AppendUint16(message, unix.NLMSG_ERROR)
	message = binary.NativeEndian.AppendUint16(message, 0)
	message = binary.NativeEndian.AppendUint32(message, 1) // sequence number
	return append(message, make([]byte, 8)...)             // port 0, error 0
}

// TestForged accepts no answer from another process, which can send one with CAP_NET_ADMIN in the namespace. The kernel
// refuses it, and what was sent before the socket was connected is dropped.
func TestForged(t *testing.T) {
	c, forger := dial(t), dial(t)
	name, err := unix.Getsockname(c.fd)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Sendto(forger.fd, acknowledgement(), 0, name); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a process sends to the socket: %v", err)
	}
	if err := unix.Sendto(forger.fd, acknowledgement(), 0, disconnect(t, c)); err != nil {
		t.Fatal(err)
	}
	if err := c.Execute(link(none)); !errors.Is(err, unix.ENODEV) {
		t.Errorf("the forged answer counts: %v", err)
	}
}

// flood sends messages to the address until the test ends.
func flood(t *testing.T, to unix.Sockaddr) {
	t.Helper()
	forger := dial(t)
	stop, stopped := make(chan bool), make(chan bool)
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Sendto(forger.fd, acknowledgement(), unix.MSG_DONTWAIT, to)
				time.Sleep(100 * time.Microsecond) // so that the queue does not overflow, which would be an error too
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-stopped })
}

// TestFlooded checks that requests and Hear end in time, however much somebody else sends.
func TestFlooded(t *testing.T) {
	inOwnNamespace(t)
	for name, c := range map[string]struct {
		wait func(*Conn) error
		to   func(*Conn) unix.Sockaddr
	}{
		"conversation": {func(c *Conn) error { _, err := c.await(1, 1<<20); return err },
			func(c *Conn) unix.Sockaddr { return disconnect(t, c) }},
		"group": {func(c *Conn) error {
			_, err := c.Hear(time.Now(), func(uint16, []byte) bool { return false })
			return err
		}, func(c *Conn) unix.Sockaddr {
			if err := c.Join(unix.RTNLGRP_LINK); err != nil {
				t.Fatal(err)
			}
			return &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.RTNLGRP_LINK - 1)}
		}},
	} {
		its := dial(t)
		flood(t, c.to(its))
		ended := make(chan error, 1)
		go func() { ended <- c.wait(its) }()
		select {
		case err := <-ended:
			if err != nil && !IsLost(err) {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(time.Minute):
			t.Errorf("%s: it does not end", name)
		}
	}
}

// TestHear receives the notification of a new interface, and no other one.
func TestHear(t *testing.T) {
	inOwnNamespace(t)
	c := dial(t)
	if err := c.Join(unix.RTNLGRP_LINK); err != nil {
		t.Fatal(err)
	}
	heard, err := c.Hear(time.Now().Add(time.Millisecond), func(uint16, []byte) bool { return true })
	if heard || err != nil {
		t.Errorf("%t, %v", heard, err)
	}
	maker := dial(t)
	const name = "heard"
	header := make([]byte, unix.SizeofIfInfomsg)
	made := Message{Kind: unix.RTM_NEWLINK, Flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, Header: header,
		Attributes: []Attribute{Text(unix.IFLA_IFNAME, name), Nested(unix.IFLA_LINKINFO, Text(unix.IFLA_INFO_KIND, "veth"))}}
	if err := maker.Execute(made); err != nil {
		t.Fatal(err)
	}
	heard, err = c.Hear(time.Now().Add(time.Minute), func(kind uint16, data []byte) bool {
		return kind == unix.RTM_NEWLINK && string(Find(data[unix.SizeofIfInfomsg:], unix.IFLA_IFNAME)) == name+"\x00"
	})
	if !heard || err != nil {
		t.Errorf("%t, %v", heard, err)
	}
}

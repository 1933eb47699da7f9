package netfilter

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// rtConn is an rtnetlink(7) socket. The three messages needed are written here because a library for all of rtnetlink
// would add a sixth to the size of the plugin, which every pod of the node loads.
type rtConn struct{ conn *netlink.Conn }

func dialRoute() (*rtConn, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("opening an rtnetlink socket: %w", err)
	}
	return &rtConn{conn}, conn.SetDeadline(time.Now().Add(netlinkTimeout))
}

func (c *rtConn) close() { _ = c.conn.Close() }

// rtRequest describes one object: the message that makes it (the kernel numbers NEW, DEL and GET one after the other),
// its fixed header and its attributes.
type rtRequest struct {
	create uint16
	header []byte
	attrs  []netlink.Attribute
}

const (
	loopbackIndex = 1 // of lo, in every network namespace
	// rulePriority is the last before the main table, as `ip rule add` picks it in a namespace without rules. Without one
	// of its own the kernel picks the next free one, and no rule would ever be the same as another.
	rulePriority = 32765
)

// addressRequest is struct ifaddrmsg: family, prefix length, flags, scope, interface.
func addressRequest(a redirect.Address) rtRequest {
	header := []byte{routeFamily(a.Family), byte(a.Prefix.Bits()), 0, unix.RT_SCOPE_HOST}
	return rtRequest{unix.RTM_NEWADDR, append(header, native(loopbackIndex)...), []netlink.Attribute{
		{Type: unix.IFA_ADDRESS, Data: a.Prefix.Addr().AsSlice()},
	}}
}

// ruleRequest is struct fib_rule_hdr: family, dst_len, src_len, tos, table, two reserved, action, flags.
func ruleRequest(r redirect.PolicyRoute) rtRequest {
	header := []byte{routeFamily(r.Family), 0, 0, 0, unix.RT_TABLE_UNSPEC, 0, 0, unix.FR_ACT_TO_TBL, 0, 0, 0, 0}
	return rtRequest{unix.RTM_NEWRULE, header, []netlink.Attribute{
		{Type: unix.FRA_PRIORITY, Data: native(rulePriority)},
		{Type: unix.FRA_FWMARK, Data: native(r.Mark)},
		{Type: unix.FRA_TABLE, Data: native(r.Table)},
	}}
}

// routeRequest is struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags. No destination and a
// length of 0 is the default route.
func routeRequest(r redirect.PolicyRoute) rtRequest {
	header := []byte{routeFamily(r.Family), 0, 0, 0, unix.RT_TABLE_UNSPEC, unix.RTPROT_BOOT, unix.RT_SCOPE_HOST, unix.RTN_LOCAL, 0, 0, 0, 0}
	return rtRequest{unix.RTM_NEWROUTE, header, []netlink.Attribute{
		{Type: unix.RTA_OIF, Data: native(loopbackIndex)},
		{Type: unix.RTA_TABLE, Data: native(r.Table)},
	}}
}

func routeFamily(f redirect.Family) byte {
	if f == redirect.IPv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func (c *rtConn) send(kind uint16, flags netlink.HeaderFlags, r rtRequest) error {
	attrs, err := netlink.MarshalAttributes(r.attrs)
	if err != nil {
		return err
	}
	_, err = c.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | netlink.Acknowledge | flags},
		Data:   append(bytes.Clone(r.header), attrs...),
	})
	return err
}

// add makes the object; EEXIST if it is there.
func (c *rtConn) add(r rtRequest) error { return c.send(r.create, netlink.Create|netlink.Excl, r) }

func (c *rtConn) remove(r rtRequest) error { return c.send(r.create+1, 0, r) }

// exists looks for an object of the family with the same attributes.
func (c *rtConn) exists(r rtRequest) (bool, error) {
	header := make([]byte, len(r.header))
	header[0] = r.header[0]
	replies, err := c.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(r.create + 2), Flags: netlink.Request | netlink.Dump}, Data: header,
	})
	if err != nil {
		return false, fmt.Errorf("listing addresses, rules or routes: %w", err)
	}
	for _, reply := range replies {
		if len(reply.Data) >= len(header) && hasAttributes(reply.Data[len(header):], r.attrs) {
			return true, nil
		}
	}
	return false, nil
}

func hasAttributes(data []byte, want []netlink.Attribute) bool {
	got, err := netlink.UnmarshalAttributes(data)
	if err != nil {
		return false
	}
	for _, w := range want {
		found := false
		for _, g := range got {
			found = found || g.Type == w.Type && bytes.Equal(g.Data, w.Data)
		}
		if !found {
			return false
		}
	}
	return true
}

// loopbackIsUp asks by ioctl, netdevice(7): one number instead of everything that netlink tells of a link.
func loopbackIsUp() (bool, error) {
	up := false
	err := withLoopbackFlags(func(flags uint16) uint16 {
		up = flags&unix.IFF_UP != 0
		return flags
	})
	if errors.Is(err, unix.EEXIST) {
		err = nil
	}
	return up, err
}

// setLoopback brings lo up or down; EEXIST if it is so already.
func setLoopback(up bool) error {
	return withLoopbackFlags(func(flags uint16) uint16 {
		if up {
			return flags | unix.IFF_UP
		}
		return flags &^ unix.IFF_UP
	})
}

func withLoopbackFlags(change func(uint16) uint16) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, request); err != nil {
		return err
	}
	before := request.Uint16()
	after := change(before)
	if after == before {
		return unix.EEXIST
	}
	request.SetUint16(after)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}

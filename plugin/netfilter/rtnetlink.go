package netfilter

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

// rtConn is an rtnetlink(7) socket. The three messages needed are written here because a library for all of rtnetlink
// would make the plugin, which every pod of the node starts, larger by a fifteenth.
type rtConn struct{ *netlink.Conn }

func dialRoute() (*rtConn, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	return &rtConn{conn}, err
}

// rtRequest describes one object: the message that makes it (the kernel numbers NEW, DEL and GET one after the other),
// its fixed header and its attributes.
type rtRequest struct {
	create uint16
	header []byte
	attrs  []rtAttr
}

type rtAttr struct {
	kind  uint16
	value []byte
}

const (
	loopbackIndex = 1 // of lo, in every network namespace
	// rulePriority is the last before the main table, as `ip rule add` picks it in a namespace without rules. Without one
	// of its own the kernel picks the next free one, and no rule would ever be the same as another.
	rulePriority = 32765
)

// addressRequest is struct ifaddrmsg: family, prefix length, flags, scope, interface. Without IFA_F_NODAD the kernel ends
// duplicate address detection, which lo does not have, in a worker of its own: until that has run the address is
// tentative, and nobody can bind to it.
func addressRequest(a redirect.Address) rtRequest {
	header := []byte{routeFamily(a.Family), byte(a.Prefix.Bits()), unix.IFA_F_NODAD, unix.RT_SCOPE_HOST}
	return rtRequest{unix.RTM_NEWADDR, append(header, native(loopbackIndex)...), []rtAttr{
		{unix.IFA_ADDRESS, a.Prefix.Addr().AsSlice()},
	}}
}

// ruleRequest is struct fib_rule_hdr: family, dst_len, src_len, tos, table, two reserved, action, flags.
func ruleRequest(r redirect.PolicyRoute) rtRequest {
	header := []byte{routeFamily(r.Family), 0, 0, 0, unix.RT_TABLE_UNSPEC, 0, 0, unix.FR_ACT_TO_TBL, 0, 0, 0, 0}
	return rtRequest{unix.RTM_NEWRULE, header, []rtAttr{
		{unix.FRA_PRIORITY, native(rulePriority)},
		{unix.FRA_FWMARK, native(r.Mark)},
		{unix.FRA_TABLE, native(r.Table)},
	}}
}

// routeRequest is struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags. No destination and a
// length of 0 is the default route.
func routeRequest(r redirect.PolicyRoute) rtRequest {
	header := []byte{routeFamily(r.Family), 0, 0, 0, unix.RT_TABLE_UNSPEC, unix.RTPROT_BOOT, unix.RT_SCOPE_HOST, unix.RTN_LOCAL, 0, 0, 0, 0}
	return rtRequest{unix.RTM_NEWROUTE, header, []rtAttr{
		{unix.RTA_OIF, native(loopbackIndex)},
		{unix.RTA_TABLE, native(r.Table)},
	}}
}

func routeFamily(f redirect.Family) byte {
	if f == redirect.IPv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func (r rtRequest) message(kind, flags uint16) netlink.Message {
	m := netlink.Message{Kind: kind, Flags: flags, Header: r.header}
	for _, a := range r.attrs {
		m.Attributes = append(m.Attributes, netlink.Bytes(a.kind, a.value))
	}
	return m
}

// add makes the object; EEXIST if it is there.
func (c *rtConn) add(r rtRequest) error {
	return c.Execute(r.message(r.create, unix.NLM_F_CREATE|unix.NLM_F_EXCL))
}

func (c *rtConn) remove(r rtRequest) error { return c.Execute(r.message(r.create+1, 0)) }

// exists looks for an object of the family with the same attributes.
func (c *rtConn) exists(r rtRequest) (bool, error) {
	header := make([]byte, len(r.header))
	header[0] = r.header[0]
	replies, err := c.Dump(netlink.Message{Kind: r.create + 2, Header: header})
	if err != nil {
		return false, fmt.Errorf("listing addresses, rules or routes: %w", err)
	}
	for _, reply := range replies {
		if len(reply) >= len(header) && r.matches(reply[len(header):]) {
			return true, nil
		}
	}
	return false, nil
}

func (r rtRequest) matches(data []byte) bool {
	got, err := netlink.Parse(data)
	return err == nil && !slices.ContainsFunc(r.attrs, func(a rtAttr) bool { return !bytes.Equal(got[a.kind], a.value) })
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

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

// rtObject is an address, a rule or a route, as the rtnetlink(7) message that creates it: its type, its fixed header
// and its attributes. DEL is the type after NEW, and GET the one after DEL. A library for all of rtnetlink would
// enlarge the plugin, which every pod of the node starts, by a fifteenth.
type rtObject struct {
	name   string
	of     redirect.Family
	create uint16
	header []byte
	attrs  []rtAttr
}

type rtAttr struct {
	kind  uint16
	value []byte
}

const (
	loopbackIndex = 1 // the index of lo, in every network namespace
	// rulePriority is the last priority before the main table, which `ip rule add` uses in a namespace without rules.
	// Without a priority the kernel uses the next free one, so a second rule would not equal the first.
	rulePriority = 32765
)

// address returns struct ifaddrmsg (family, prefix length, flags, scope, interface) and attributes. Without
// IFA_F_NODAD, a worker of the kernel has to end duplicate address detection, which lo does not do. Until then the
// address is tentative, and bind(2) to it fails.
func address(a redirect.Address) rtObject {
	header := []byte{routeFamily(a.Family), byte(a.Prefix.Bits()), unix.IFA_F_NODAD, unix.RT_SCOPE_HOST}
	return rtObject{fmt.Sprintf("address %s dev lo", a.Prefix), a.Family, unix.RTM_NEWADDR,
		append(header, native(loopbackIndex)...), []rtAttr{{unix.IFA_ADDRESS, a.Prefix.Addr().AsSlice()}}}
}

// markRule returns struct fib_rule_hdr (family, dst_len, src_len, tos, table, two reserved, action, flags) and
// attributes.
func markRule(r redirect.PolicyRoute) rtObject {
	header := []byte{routeFamily(r.Family), 0, 0, 0, unix.RT_TABLE_UNSPEC, 0, 0, unix.FR_ACT_TO_TBL, 0, 0, 0, 0}
	return rtObject{fmt.Sprintf("%s rule fwmark %d lookup %d", r.Family, r.Mark, r.Table), r.Family, unix.RTM_NEWRULE,
		header, []rtAttr{
			{unix.FRA_PRIORITY, native(rulePriority)},
			{unix.FRA_FWMARK, native(r.Mark)},
			{unix.FRA_TABLE, native(r.Table)},
		}}
}

// localRoute returns struct rtmsg (family, dst_len, src_len, tos, table, protocol, scope, type, flags) and attributes.
// The default route has no destination and the length 0.
func localRoute(r redirect.PolicyRoute) rtObject {
	header := []byte{routeFamily(r.Family), 0, 0, 0, unix.RT_TABLE_UNSPEC,
		unix.RTPROT_BOOT, unix.RT_SCOPE_HOST, unix.RTN_LOCAL, 0, 0, 0, 0}
	return rtObject{fmt.Sprintf("%s route local default dev lo table %d", r.Family, r.Table), r.Family, unix.RTM_NEWROUTE,
		header, []rtAttr{{unix.RTA_OIF, native(loopbackIndex)}, {unix.RTA_TABLE, native(r.Table)}}}
}

func routeFamily(f redirect.Family) byte {
	if f == redirect.IPv6 {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func (o rtObject) String() string          { return o.name }
func (o rtObject) family() redirect.Family { return o.of }

func (o rtObject) message(kind, flags uint16) netlink.Message {
	m := netlink.Message{Kind: kind, Flags: flags, Header: o.header}
	for _, a := range o.attrs {
		m.Attributes = append(m.Attributes, netlink.Bytes(a.kind, a.value))
	}
	return m
}

func (o rtObject) add(c *netlink.Conn) (made bool, err error) {
	err = c.Execute(o.message(o.create, unix.NLM_F_CREATE|unix.NLM_F_EXCL))
	if errors.Is(err, unix.EEXIST) {
		return false, nil
	}
	return err == nil, err
}

func (o rtObject) remove(c *netlink.Conn) error {
	err := c.Execute(o.message(o.create+1, 0))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	return err
}

// exists looks for an object of the family with the same attributes.
func (o rtObject) exists(c *netlink.Conn) (bool, error) {
	header := make([]byte, len(o.header))
	header[0] = o.header[0]
	replies, err := c.Dump(netlink.Message{Kind: o.create + 2, Header: header})
	if err != nil {
		return false, fmt.Errorf("listing addresses, rules or routes: %w", err)
	}
	for _, reply := range replies {
		if len(reply) >= len(header) && o.matches(reply[len(header):]) {
			return true, nil
		}
	}
	return false, nil
}

func (o rtObject) matches(data []byte) bool {
	return !slices.ContainsFunc(o.attrs, func(a rtAttr) bool { return !bytes.Equal(netlink.Find(data, a.kind), a.value) })
}

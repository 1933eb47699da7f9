package testnet

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// node is one network namespace of the lab, with the thread that configures it.
type node struct {
	path   string
	ns     *os.File
	root   *thread // as the host's root
	handle *netlink.Handle
}

// newNode creates a namespace at path with lo up and the given sysctls (path below /proc/sys/net, value).
func newNode(path string, owned bool, sysctls map[string]string) (n *node, err error) {
	n = &node{path: path}
	if n.ns, err = newNetNS(path, owned); err != nil {
		return nil, err
	}
	if n.root, err = startThread(n.ns, ids{}); err != nil {
		return nil, err
	}
	n.root.do(func() {
		// /proc/sys/net shows the namespace of the thread that opens it.
		for key, value := range sysctls {
			if err == nil {
				err = os.WriteFile("/proc/sys/net/"+key, []byte(value), 0)
			}
		}
		if err == nil {
			n.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("preparing network namespace %q: %w", path, err)
	}
	return n, n.up("lo")
}

func (n *node) close() {
	if n.handle != nil {
		n.handle.Close()
	}
	if n.root != nil {
		n.root.stop()
	}
	if n.ns != nil {
		n.ns.Close()
	}
}

// veth creates a veth pair, link here and peerLink at the peer, and sets both up.
func (n *node) veth(link string, peer *node, peerLink string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = link
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: peerLink, PeerNamespace: netlink.NsFd(int(peer.ns.Fd()))}
	if err := n.handle.LinkAdd(pair); err != nil {
		return fmt.Errorf("adding veth %q: %w", link, err)
	}
	if err := peer.up(peerLink); err != nil {
		return err
	}
	return n.up(link)
}

func (n *node) up(link string) error {
	l, err := n.handle.LinkByName(link)
	if err != nil {
		return fmt.Errorf("finding link %q: %w", link, err)
	}
	return n.handle.LinkSetUp(l)
}

// addr adds the place's addresses to link, with prefix lengths v4bits and v6bits.
func (n *node) addr(link string, place Place, families []Family, v4bits, v6bits int) error {
	l, err := n.handle.LinkByName(link)
	if err != nil {
		return fmt.Errorf("finding link %q: %w", link, err)
	}
	for _, family := range families {
		mask := net.CIDRMask(v4bits, 32)
		if family == IPv6 {
			mask = net.CIDRMask(v6bits, 128)
		}
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: place.Addr(family).AsSlice(), Mask: mask}}
		if family == IPv6 {
			addr.Flags = unix.IFA_F_NODAD // usable at once
		}
		if err := n.handle.AddrAdd(l, addr); err != nil {
			return fmt.Errorf("adding address %s to %q: %w", addr, link, err)
		}
	}
	return nil
}

// defaultRoute adds a default route via the place.
func (n *node) defaultRoute(link string, via Place, families []Family) error {
	l, err := n.handle.LinkByName(link)
	if err != nil {
		return fmt.Errorf("finding link %q: %w", link, err)
	}
	for _, family := range families {
		route := &netlink.Route{LinkIndex: l.Attrs().Index, Gw: via.Addr(family).AsSlice()}
		if err := n.handle.RouteAdd(route); err != nil {
			return fmt.Errorf("adding a route through %q: %w", via, err)
		}
	}
	return nil
}

// settleTime limits how long Settle waits.
const settleTime = 30 * time.Second

// Settle waits until the kernel has completed its asynchronous work after links were set up and IPv6 addresses were
// added: adding link-local addresses, and the routes of addresses.
func (l *Lab) Settle() error {
	if !l.options.NoIPv6 {
		if err := l.pod.settle(); err != nil {
			return err
		}
	}
	return errors.Join(l.peer.settle(), l.vm.settle())
}

func (n *node) settle() error {
	for deadline := time.Now().Add(settleTime); ; time.Sleep(time.Millisecond) {
		err := n.settled()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("network namespace %q is not ready: %w", n.path, err)
		}
	}
}

// settled returns an error that names something that is not yet there.
func (n *node) settled() error {
	links, err := n.handle.LinkList()
	if err != nil {
		return err
	}
	local := &netlink.Route{Table: unix.RT_TABLE_LOCAL}
	routes, err := n.handle.RouteListFiltered(netlink.FAMILY_V6, local, netlink.RT_FILTER_TABLE)
	if err != nil {
		return err // also if a change interrupted the dump
	}
	route := func(kind int, link netlink.Link, ip net.IP) bool {
		return slices.ContainsFunc(routes, func(r netlink.Route) bool {
			return r.Type == kind && r.LinkIndex == link.Attrs().Index && r.Dst != nil && r.Dst.IP.Equal(ip)
		})
	}
	for _, link := range links {
		if link.Attrs().Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := n.handle.AddrList(link, netlink.FAMILY_V6)
		if err != nil {
			return err
		}
		linkLocal := link.Attrs().Flags&net.FlagLoopback != 0
		for _, addr := range addrs {
			linkLocal = linkLocal || addr.IP.IsLinkLocalUnicast()
			if !route(unix.RTN_LOCAL, link, addr.IP) {
				return fmt.Errorf("no route to %s", addr.IPNet)
			}
			// the subnet-router anycast address comes last; the pod and its neighbours forward
			if bits, _ := addr.Mask.Size(); bits < 127 && !route(unix.RTN_ANYCAST, link, addr.IP.Mask(addr.Mask)) {
				return fmt.Errorf("no anycast route of %s", addr.IPNet)
			}
		}
		if !linkLocal {
			return fmt.Errorf("no link-local address of %q", link.Attrs().Name)
		}
	}
	return nil
}

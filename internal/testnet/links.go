package testnet

import (
	"fmt"
	"net"
	"os"

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

// newNode makes a namespace at path with lo up and the given sysctls (path below /proc/sys/net, value).
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

// veth joins link here with peerLink at the peer, both up.
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

// addr gives link the place's addresses of the families, v4bits and v6bits long.
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

// defaultRoute sends everything unknown to the place.
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

package netfilter

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

// Families returns the families in which an interface other than lo has an address, each once. It ignores link-local
// addresses, as the sidecar does: GetPrivateIPs in istio/istio pilot/pkg/util/network/ip.go.
func (n *NetNS) Families() (have []redirect.Family, err error) {
	err = n.Within(func() error {
		conn, err := netlink.Dial(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer conn.Close()
		replies, err := conn.Dump(netlink.Message{Kind: unix.RTM_GETADDR, Header: make([]byte, unix.SizeofIfAddrmsg)})
		if err != nil {
			return fmt.Errorf("listing the addresses: %w", err)
		}
		for _, reply := range replies {
			if family := globalFamily(reply); family != 0 && !slices.Contains(have, family) {
				have = append(have, family)
			}
		}
		return nil
	})
	return have, err
}

// globalFamily returns the family of an address (struct ifaddrmsg and attributes), or 0 for an address that is ignored.
func globalFamily(reply []byte) redirect.Family {
	if len(reply) < unix.SizeofIfAddrmsg || binary.NativeEndian.Uint32(reply[4:]) == loopbackIndex {
		return 0
	}
	attrs := reply[unix.SizeofIfAddrmsg:]
	own := netlink.Find(attrs, unix.IFA_LOCAL) // on a point-to-point link IFA_ADDRESS is the peer's address
	if own == nil {
		own = netlink.Find(attrs, unix.IFA_ADDRESS)
	}
	switch addr, ok := netip.AddrFromSlice(own); {
	case !ok || !addr.IsGlobalUnicast():
		return 0
	case addr.Is4():
		return redirect.IPv4
	}
	return redirect.IPv6
}

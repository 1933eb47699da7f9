package look

import (
	"encoding/binary"
	"fmt"

	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

// know reads what the trace is told in numbers: interfaces, base chains and the plugin's own rules.
func (l *listener) know() error {
	l.links, l.chains, l.rules = map[uint32]string{}, map[string]string{}, map[string]int{}
	if err := l.knowLinks(); err != nil {
		return fmt.Errorf("listing the pod's interfaces: %w", err)
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.Limit = mostListed
	chains, err := dump(conn, unix.NFT_MSG_GETCHAIN, unix.AF_UNSPEC)
	if err != nil {
		return fmt.Errorf("listing the pod's chains: %w", err)
	}
	for _, c := range chains {
		place, _ := parse(c.attrs[unix.NFTA_CHAIN_HOOK])
		if place[unix.NFTA_HOOK_HOOKNUM] != nil {
			l.chains[key(c.family, c.text(unix.NFTA_CHAIN_TABLE), c.text(unix.NFTA_CHAIN_NAME))] =
				hooks[object{attrs: place}.number(unix.NFTA_HOOK_HOOKNUM)]
		}
	}
	for _, family := range []uint8{unix.NFPROTO_IPV4, unix.NFPROTO_IPV6} { // of all at once the kernel lists one table
		if err := l.knowRules(conn, family); err != nil {
			return fmt.Errorf("listing the pod's rules: %w", err)
		}
	}
	return nil
}

// knowRules reads the places of the rules in our table of a family.
func (l *listener) knowRules(conn *netlink.Conn, family uint8) error {
	rules, err := dump(conn, unix.NFT_MSG_GETRULE, family, netlink.Text(unix.NFTA_RULE_TABLE, redirect.TableName))
	count := map[string]int{}
	for _, r := range rules {
		its := key(r.family, r.text(unix.NFTA_RULE_TABLE), r.text(unix.NFTA_RULE_CHAIN))
		count[its]++
		l.rules[its+string(r.attrs[unix.NFTA_RULE_HANDLE])] = count[its]
	}
	return err
}

// hooks by enum nf_inet_hooks.
var hooks = map[uint32]string{
	unix.NF_INET_PRE_ROUTING: "prerouting", unix.NF_INET_LOCAL_IN: "input", unix.NF_INET_FORWARD: "forward",
	unix.NF_INET_LOCAL_OUT: "output", unix.NF_INET_POST_ROUTING: "postrouting",
}

// key names a chain.
func key(family uint8, table, chain string) string {
	return fmt.Sprintf("%d %s %s ", family, table, chain)
}

// parse reads attributes by type. Of those with the same type the last one stays.
func parse(data []byte) (map[uint16][]byte, error) {
	values := map[uint16][]byte{}
	err := netlink.Each(data, func(kind uint16, value []byte) { values[kind] = value })
	return values, err
}

// dump lists objects of nf_tables.
func dump(conn *netlink.Conn, kind uint16, family uint8, attributes ...netlink.Attribute) (all []object, err error) {
	replies, err := conn.Dump(netlink.Message{Kind: unix.NFNL_SUBSYS_NFTABLES<<8 | kind,
		Header: []byte{family, 0, 0, 0}, Attributes: attributes})
	for _, data := range replies {
		if len(data) < nfgenmsg {
			return nil, fmt.Errorf("message of %d bytes", len(data))
		}
		parsed, err := parse(data[nfgenmsg:])
		if err != nil {
			return nil, err
		}
		all = append(all, object{data[0], parsed})
	}
	return all, err
}

func (l *listener) knowLinks() error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.Limit = mostListed
	replies, err := conn.Dump(netlink.Message{Kind: unix.RTM_GETLINK, Header: make([]byte, unix.SizeofIfInfomsg)})
	for _, data := range replies {
		if len(data) < unix.SizeofIfInfomsg {
			continue
		}
		attributes, err := parse(data[unix.SizeofIfInfomsg:])
		if err != nil {
			return err
		}
		l.links[binary.NativeEndian.Uint32(data[4:])] = object{attrs: attributes}.text(unix.IFLA_IFNAME)
	}
	return err
}

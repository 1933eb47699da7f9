package netfilter

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"golang.org/x/sys/unix"
)

// object is one nf_tables object as the kernel lists it: its attributes. Rules are not decoded. Two rules are equal if
// the kernel describes them in the same bytes.
type object struct {
	family uint8
	attrs  []byte
}

func (o object) attr(kind uint16) []byte { return netlink.Find(o.attrs, kind) }

func (o object) text(attr uint16) string { return strings.TrimRight(string(o.attr(attr)), "\x00") }

// number returns a 32-bit attribute in network byte order, or 0 if it is missing.
func (o object) number(attr uint16) uint32 {
	if value := o.attr(attr); len(value) == 4 {
		return binary.BigEndian.Uint32(value)
	}
	return 0
}

const nfgenmsg = 4 // the size in bytes of struct nfgenmsg: family, version, resource ID

// nfMessage returns a request to nf_tables: struct nfgenmsg (version 0, resource ID 0) and attributes.
func nfMessage(kind, flags uint16, family uint8, attrs []netlink.Attribute) netlink.Message {
	return netlink.Message{
		Kind: unix.NFNL_SUBSYS_NFTABLES<<8 | kind, Flags: flags, Header: []byte{family, 0, 0, 0}, Attributes: attrs,
	}
}

// dump requests a listing. Tests make it fail.
var dump = (*netlink.Conn).Dump

// dumpNFT returns the objects that an NFT_MSG_GET… request lists. attrs may filter them.
func dumpNFT(conn *netlink.Conn, kind uint16, family uint8, attrs []netlink.Attribute) ([]object, error) {
	replies, err := dump(conn, nfMessage(kind, 0, family, attrs))
	if err != nil {
		return nil, fmt.Errorf("listing nftables objects: %w", err)
	}
	objects := make([]object, 0, len(replies))
	for _, data := range replies {
		if len(data) < nfgenmsg {
			return nil, fmt.Errorf("listing nftables objects: message of %d bytes", len(data))
		}
		objects = append(objects, object{data[0], data[nfgenmsg:]})
	}
	return objects, nil
}

// ofTable limits a request to one table. The table's name is attribute 1 of requests for chains, rules, sets and
// elements.
func ofTable(name string) []netlink.Attribute {
	return []netlink.Attribute{netlink.Text(unix.NFTA_RULE_TABLE, name)}
}

// be32 returns an attribute with a 32-bit number in network byte order, as nf_tables expects it.
func be32(kind uint16, v uint32) netlink.Attribute {
	return netlink.Bytes(kind, binary.BigEndian.AppendUint32(nil, v))
}

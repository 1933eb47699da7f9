package netfilter

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// dumper reads the kernel's nf_tables state as raw netlink attributes. Nothing of a rule is decoded: two rules are equal
// if the kernel describes them in the same bytes, whichever expressions they use.
type dumper struct{ conn *netlink.Conn }

func newDumper() (*dumper, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	return &dumper{conn}, conn.SetDeadline(time.Now().Add(netlinkTimeout))
}

func (d *dumper) close() { _ = d.conn.Close() }

// object is one nf_tables object: its top-level attributes by type.
type object struct {
	family uint8
	attrs  map[uint16][]byte
}

func (o object) text(attr uint16) string { return strings.TrimRight(string(o.attrs[attr]), "\x00") }

// dump lists the objects that the NFT_MSG_GET… message reports; filter attributes may be nil. Linux: nf_tables.h.
func (d *dumper) dump(message uint16, family uint8, filter []netlink.Attribute) ([]object, error) {
	data, err := netlink.MarshalAttributes(filter)
	if err != nil {
		return nil, err
	}
	// struct nfgenmsg: family, version 0, resource ID 0.
	request := netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | message),
			Flags: netlink.Request | netlink.Dump,
		},
		Data: append([]byte{family, 0, 0, 0}, data...),
	}
	replies, err := d.conn.Execute(request)
	if err != nil {
		return nil, fmt.Errorf("listing nftables objects: %w", err)
	}
	objects := make([]object, 0, len(replies))
	for _, reply := range replies {
		o, err := parseObject(reply.Data)
		if err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
	return objects, nil
}

func parseObject(data []byte) (object, error) {
	if len(data) < 4 {
		return object{}, fmt.Errorf("listing nftables objects: message of %d bytes", len(data))
	}
	o := object{family: data[0], attrs: map[uint16][]byte{}}
	decoder, err := netlink.NewAttributeDecoder(data[4:])
	if err != nil {
		return object{}, err
	}
	decoder.ByteOrder = binary.BigEndian
	for decoder.Next() {
		o.attrs[decoder.Type()] = decoder.Bytes()
	}
	return o, decoder.Err()
}

// nameAttr is a filter attribute: a zero-terminated string.
func nameAttr(attr uint16, name string) netlink.Attribute {
	return netlink.Attribute{Type: attr, Data: append([]byte(name), 0)}
}

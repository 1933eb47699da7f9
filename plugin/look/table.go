package look

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/google/nftables/expr"
	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"golang.org/x/sys/unix"
)

// TableName is the name of the table that is in a pod's network namespace as long as the program listens.
const TableName = "istio-pod-network-look"

// ownerFlag is NFT_TABLE_F_OWNER, Linux 5.12: the table goes with the socket that has made it, and nobody else can
// change it. Source: include/uapi/linux/netfilter/nf_tables.h, nft_rcv_nl_event in net/netfilter/nf_tables_api.c.
const ownerFlag = 2

// Priorities: before any rule of another (raw is -300, and defragmentation, which comes first, -400), next behind
// connection tracking (-200), and behind all.
const (
	first   = -399
	tracked = -199
	last    = math.MaxInt32 - 1 // what follows confirms connections
)

const register = unix.NFT_REG_1

// loIndex is lo's in every network namespace.
const loIndex = 1

// chain is one of the table.
type chain struct {
	name     string
	hook     uint32
	priority int32
	rules    [][]expr.Any
}

// addTable adds the table: where the packet comes first it is marked for the trace, and at the two places where it
// leaves the rules it is dropped. It is also dropped where it has the port of a connection that is known: nat would do
// with it as with that one, and ask no rule.
func (q *question) addTable(owner *netlink.Conn, port uint16) error {
	begin := chain{name: "begin", hook: unix.NF_INET_LOCAL_OUT, priority: first}
	if q.outside {
		begin.hook = unix.NF_INET_PRE_ROUTING
	}
	mark := []expr.Any{&expr.Immediate{Register: register, Data: []byte{1}},
		&expr.Meta{Key: expr.MetaKeyNFTRACE, SourceRegister: true, Register: register}}
	begin.rules = [][]expr.Any{slices.Concat(q.one(), sentFrom(port), q.forWhom(), mark)}
	known := slices.Concat(q.one(), q.comes(), sentFrom(port), q.forWhom(), confirmed(),
		[]expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}})
	chains := []chain{begin, {"known", begin.hook, tracked, [][]expr.Any{known}},
		{"delivered", unix.NF_INET_LOCAL_IN, last, q.drop(port, q.comes())},
		{"leaves", unix.NF_INET_POST_ROUTING, last, q.drop(port, slices.Concat(q.comes(), notByLo()))},
	}
	bounds := []byte{unix.AF_UNSPEC, 0, 0, unix.NFNL_SUBSYS_NFTABLES}
	messages := []netlink.Message{{Kind: unix.NFNL_MSG_BATCH_BEGIN, Header: bounds},
		message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
			netlink.Text(unix.NFTA_TABLE_NAME, TableName), be32(unix.NFTA_TABLE_FLAGS, ownerFlag))}
	for _, c := range chains {
		messages = append(messages, message(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE,
			netlink.Text(unix.NFTA_CHAIN_TABLE, TableName), netlink.Text(unix.NFTA_CHAIN_NAME, c.name),
			netlink.Nested(unix.NFTA_CHAIN_HOOK, be32(unix.NFTA_HOOK_HOOKNUM, c.hook),
				be32(unix.NFTA_HOOK_PRIORITY, uint32(c.priority))),
			netlink.Text(unix.NFTA_CHAIN_TYPE, "filter")))
		for _, rule := range c.rules {
			var exprs []netlink.Attribute
			for _, e := range rule {
				its, err := encode(e)
				if err != nil {
					return fmt.Errorf("encoding a rule: %w", err)
				}
				exprs = append(exprs, its)
			}
			messages = append(messages, message(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND,
				netlink.Text(unix.NFTA_RULE_TABLE, TableName), netlink.Text(unix.NFTA_RULE_CHAIN, c.name),
				netlink.Nested(unix.NFTA_RULE_EXPRESSIONS, exprs...)))
		}
	}
	acked := len(messages) - 1
	messages = append(messages, netlink.Message{Kind: unix.NFNL_MSG_BATCH_END, Header: bounds})
	_, err := owner.Batch(messages, acked)
	switch {
	case errors.Is(err, unix.EEXIST), errors.Is(err, unix.EPERM): // an owner's table is nobody else's
		return &notTold{why: "another trace is made in this pod: ask again"}
	case err != nil:
		return &notTold{why: fmt.Sprintf("the kernel does not take the table that traces: %v", err)}
	}
	return nil
}

// drop are the rules that drop the packet at a place. Somebody's nat may have given it another source by then, which
// connection tracking remembers, and what is not tracked has none.
func (q *question) drop(port uint16, at []expr.Any) [][]expr.Any {
	as := sentFrom(port)
	if q.outside { // where the port is one of the node's, and of many others'
		as = append(as, q.forWhom()...)
	}
	verdict := []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	return [][]expr.Any{slices.Concat(q.one(), at, as, verdict), slices.Concat(q.one(), at, q.begun(port), verdict)}
}

// one are the conditions for a packet such as the program sends: of that family, and a SYN, or an empty datagram.
// Source: RFC 9293 3.1, RFC 768.
func (q *question) one() []expr.Any {
	all := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: register}, compare(expr.CmpOpEq, []byte{q.family()}),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}, compare(expr.CmpOpEq, []byte{q.proto}),
	}
	if q.proto == unix.IPPROTO_UDP {
		const header = 8
		return append(all, transport(4, 2), compare(expr.CmpOpEq, binary.BigEndian.AppendUint16(nil, header)))
	}
	const syn, ack = 0x02, 0x10
	return append(all, transport(13, 1),
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 1, Mask: []byte{syn | ack}, Xor: []byte{0}},
		compare(expr.CmpOpEq, []byte{syn}))
}

// comes are the conditions for where it comes from: the pod, of which it has no interface or lo, or outside.
func (q *question) comes() []expr.Any {
	op := expr.CmpOpEq
	if q.outside {
		op = expr.CmpOpNeq
	}
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyIIF, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: native(^uint32(loIndex)),
			Xor: native(0)},
		compare(op, native(0))}
}

func notByLo() []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyOIF, Register: register}, compare(expr.CmpOpNeq, native(loIndex))}
}

// sentFrom are the conditions for what comes from the program's own port.
func sentFrom(port uint16) []expr.Any {
	return []expr.Any{transport(0, 2), compare(expr.CmpOpEq, binary.BigEndian.AppendUint16(nil, port))}
}

// forWhom are the conditions for whom it is for.
func (q *question) forWhom() []expr.Any {
	offset := uint32(16) // RFC 791 3.1
	if q.to.Addr().Is6() {
		offset = 24 // RFC 8200 3
	}
	to := q.to.Addr().AsSlice()
	return []expr.Any{
		transport(2, 2), compare(expr.CmpOpEq, binary.BigEndian.AppendUint16(nil, q.to.Port())),
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(to))},
		compare(expr.CmpOpEq, to),
	}
}

// begun are the conditions for what goes the way of a connection that has been begun from the program's own port, to
// whom the packet is for. They break the rule off where there is none: nft_ct_get_eval in net/netfilter/nft_ct.c.
func (q *question) begun(port uint16) []expr.Any {
	address := expr.CtKey(unix.NFT_CT_DST_IP)
	if q.to.Addr().Is6() {
		address = unix.NFT_CT_DST_IP6
	}
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyDIRECTION, Register: register}, compare(expr.CmpOpEq, []byte{original}),
		&expr.Ct{Key: expr.CtKeyPROTOSRC, Register: register},
		compare(expr.CmpOpEq, binary.BigEndian.AppendUint16(nil, port)),
		&expr.Ct{Key: expr.CtKeyPROTODST, Register: register},
		compare(expr.CmpOpEq, binary.BigEndian.AppendUint16(nil, q.to.Port())),
		&expr.Ct{Key: address, Register: register}, compare(expr.CmpOpEq, q.to.Addr().AsSlice()),
	}
}

// confirmed are the conditions for what belongs to a connection whose first packet has come to its end before.
func confirmed() []expr.Any {
	const ipsConfirmed = 1 << 3 // include/uapi/linux/netfilter/nf_conntrack_common.h
	return []expr.Any{&expr.Ct{Key: expr.CtKeySTATUS, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: native(ipsConfirmed), Xor: native(0)},
		compare(expr.CmpOpNeq, native(0))}
}

const original = 0 // IP_CT_DIR_ORIGINAL, include/uapi/linux/netfilter/nf_conntrack_tuple_common.h

// encode returns the attributes of an expression. What it loads of a connection's tuple is that of the first packet,
// and the library writes no direction of one byte, as the kernel wants it.
func encode(e expr.Any) (netlink.Attribute, error) {
	if ct, is := e.(*expr.Ct); is && ct.Key != expr.CtKeyDIRECTION && ct.Key != expr.CtKeySTATUS {
		return netlink.Nested(unix.NFTA_LIST_ELEM, netlink.Text(unix.NFTA_EXPR_NAME, "ct"),
			netlink.Nested(unix.NFTA_EXPR_DATA, be32(unix.NFTA_CT_KEY, uint32(ct.Key)),
				be32(unix.NFTA_CT_DREG, ct.Register), netlink.Bytes(unix.NFTA_CT_DIRECTION, []byte{original}))), nil
	}
	data, err := expr.Marshal(unix.NFPROTO_INET, e)
	return netlink.NestedBytes(unix.NFTA_LIST_ELEM, data), err
}

func (q *question) family() byte {
	if q.to.Addr().Is6() {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

// transport loads bytes of the header of TCP or UDP.
func transport(offset, count uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: count}
}

func compare(op expr.CmpOp, data []byte) expr.Any {
	return &expr.Cmp{Op: op, Register: register, Data: data}
}

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func be32(kind uint16, v uint32) netlink.Attribute {
	return netlink.Bytes(kind, binary.BigEndian.AppendUint32(nil, v))
}

// message is one to nf_tables about a table of both families.
func message(kind, flags uint16, attributes ...netlink.Attribute) netlink.Message {
	return netlink.Message{Kind: unix.NFNL_SUBSYS_NFTABLES<<8 | kind, Flags: flags,
		Header: []byte{unix.NFPROTO_INET, 0, 0, 0}, Attributes: attributes}
}

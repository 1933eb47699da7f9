package look

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/google/nftables/expr"
	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"golang.org/x/sys/unix"
)

// TableName is the name of the table that is in a pod's network namespace as long as the program listens.
const TableName = "istio-pod-network-look"

// ownerFlag is NFT_TABLE_F_OWNER, Linux 5.12: the table goes with the socket that has made it, and nobody else can
// change it. Source: include/uapi/linux/netfilter/nf_tables.h, nft_rcv_nl_event in net/netfilter/nf_tables_api.c.
const ownerFlag = 2

// Priorities: before any rule of another (raw is -300, and defragmentation, which comes first, -400), and behind.
const (
	first = -399
	last  = math.MaxInt32 - 1 // what follows confirms connections
)

const register = unix.NFT_REG_1

// loIndex is lo's in every network namespace.
const loIndex = 1

// chain is one of the table.
type chain struct {
	name     string
	hook     uint32
	priority int32
	rule     []expr.Any
}

// addTable adds the table: where the packet comes first it is marked for the trace, and at the two places where it
// leaves the rules it is dropped.
func (q *question) addTable(owner *netlink.Conn, port uint16) error {
	toLo, notLo := expr.CmpOpEq, expr.CmpOpNeq
	begin, comes := chain{name: "begin", hook: unix.NF_INET_LOCAL_OUT, priority: first}, toLo
	if q.outside {
		begin.hook, comes = unix.NF_INET_PRE_ROUTING, notLo
	}
	its := append(q.sent(port),
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		compare(expr.CmpOpEq, binary.BigEndian.AppendUint16(nil, q.to.Port())))
	begin.rule = append(its, q.forWhom()...)
	begin.rule = append(begin.rule, &expr.Immediate{Register: register, Data: []byte{1}},
		&expr.Meta{Key: expr.MetaKeyNFTRACE, SourceRegister: true, Register: register})
	drop := func(key expr.MetaKey, op expr.CmpOp) []expr.Any {
		return append(q.sent(port), &expr.Meta{Key: key, Register: register}, compare(op, native(loIndex)),
			&expr.Verdict{Kind: expr.VerdictDrop})
	}
	chains := []chain{begin,
		{"delivered", unix.NF_INET_LOCAL_IN, last, drop(expr.MetaKeyIIF, comes)},
		{"leaves", unix.NF_INET_POST_ROUTING, last, drop(expr.MetaKeyOIF, notLo)},
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
		var exprs []netlink.Attribute
		for _, e := range c.rule {
			data, err := expr.Marshal(unix.NFPROTO_INET, e)
			if err != nil {
				return fmt.Errorf("encoding a rule: %w", err)
			}
			exprs = append(exprs, netlink.NestedBytes(unix.NFTA_LIST_ELEM, data))
		}
		messages = append(messages, message(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND,
			netlink.Text(unix.NFTA_RULE_TABLE, TableName), netlink.Text(unix.NFTA_RULE_CHAIN, c.name),
			netlink.Nested(unix.NFTA_RULE_EXPRESSIONS, exprs...)))
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

// sent are the conditions for what comes from the program's own port.
func (q *question) sent(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}, compare(expr.CmpOpEq, []byte{q.proto}),
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
		compare(expr.CmpOpEq, binary.BigEndian.AppendUint16(nil, port)),
	}
}

// forWhom are the conditions for whom it is for.
func (q *question) forWhom() []expr.Any {
	family, offset := byte(unix.NFPROTO_IPV4), uint32(16) // RFC 791 3.1
	if q.to.Addr().Is6() {
		family, offset = unix.NFPROTO_IPV6, 24 // RFC 8200 3
	}
	to := q.to.Addr().AsSlice()
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: register}, compare(expr.CmpOpEq, []byte{family}),
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(to))},
		compare(expr.CmpOpEq, to),
	}
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

package netfilter

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

// line is one rule in the kernel's form.
type line struct {
	exprs   []expr.Any
	comment string
}

// register is the only register that the rules use: NFT_REG_1, 16 bytes wide.
const register = unix.NFT_REG_1

// render returns the nftables expressions of a rule. A TPROXY rule becomes two: see redirect.TProxyTo.
func render(t redirect.Table, r redirect.Rule, sets *setMaker) []line {
	matches := func() []expr.Any {
		var exprs []expr.Any
		for _, m := range r.Matches {
			exprs = append(exprs, matchExprs(t.Family, m, sets)...)
		}
		return exprs
	}
	lines := []line{{append(matches(), targetExprs(t, r.Target)...), r.Why}}
	if _, ok := r.Target.(redirect.TProxyTo); ok {
		// The kernel's tproxy expression ends the rule if no socket listens, and the packet would reach the app
		// (net/netfilter/nft_tproxy.c).
		lines = append(lines, line{append(matches(), &expr.Verdict{Kind: expr.VerdictDrop}), redirect.NoListener})
	}
	return lines
}

func matchExprs(family redirect.Family, match redirect.Match, sets *setMaker) []expr.Any {
	switch m := match.(type) {
	case redirect.Proto:
		return meta(expr.MetaKeyL4PROTO, expr.CmpOpEq, []byte{byte(m)})
	case redirect.InInterface:
		return append([]expr.Any{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: register}}, sets.names(m)...)
	case redirect.OutInterface:
		return append([]expr.Any{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: register}}, sets.names(m)...)
	case redirect.From:
		return append([]expr.Any{loadAddress(family, false)}, sets.prefixes(m)...)
	case redirect.To:
		return append([]expr.Any{loadAddress(family, true)}, sets.prefixes(m)...)
	case redirect.NotTo:
		return []expr.Any{loadAddress(family, true), compare(expr.CmpOpNeq, netip.Prefix(m).Addr().AsSlice())}
	case redirect.SourcePort:
		return []expr.Any{loadPort(0), compare(expr.CmpOpEq, portBytes(uint16(m)))}
	case redirect.DestPorts:
		return append([]expr.Any{loadPort(2)}, sets.ports(m)...)
	case redirect.Original:
		return original()
	case redirect.OriginalDestPorts:
		return slices.Concat(original(), []expr.Any{ofOriginal(expr.CtKeyPROTODST)}, sets.ports(m))
	case redirect.OriginalTo:
		return slices.Concat(original(), []expr.Any{ofOriginal(addressKeys[family])}, sets.prefixes(m))
	case redirect.NotDestPorts:
		return append([]expr.Any{loadPort(2)}, sets.notPorts(m)...)
	case redirect.Opening:
		return opening()
	case redirect.SocketUID:
		return meta(expr.MetaKeySKUID, expr.CmpOpEq, native(uint32(m)))
	case redirect.SocketGID:
		return meta(expr.MetaKeySKGID, expr.CmpOpEq, native(uint32(m)))
	case redirect.SocketGroups:
		return append([]expr.Any{&expr.Meta{Key: expr.MetaKeySKGID, Register: register}}, sets.groups(m)...)
	case redirect.Mark:
		return meta(expr.MetaKeyMARK, expr.CmpOpEq, native(uint32(m)))
	case redirect.NotMark:
		return meta(expr.MetaKeyMARK, expr.CmpOpNeq, native(uint32(m)))
	case redirect.ConnMark:
		return []expr.Any{&expr.Ct{Key: expr.CtKeyMARK, Register: register}, compare(expr.CmpOpEq, native(uint32(m)))}
	case redirect.ConnState:
		return connState(m)
	}
	panic(fmt.Sprintf("netfilter: no nftables expression for %T", match))
}

func targetExprs(t redirect.Table, target redirect.Target) []expr.Any {
	setMark := &expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: register}
	switch v := target.(type) {
	case redirect.Return:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}
	case redirect.Accept:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	case redirect.Drop:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	case redirect.Jump:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: redirect.NFTName(t.Kind, string(v))}}
	case redirect.RedirectTo:
		return []expr.Any{load(portBytes(uint16(v))),
			&expr.Redir{RegisterProtoMin: register, Flags: unix.NF_NAT_RANGE_PROTO_SPECIFIED}}
	case redirect.TProxyTo:
		family := nfproto(t.Family)
		return []expr.Any{
			load(portBytes(uint16(v.Port))), &expr.TProxy{Family: family, TableFamily: family, RegPort: register},
			load(native(v.Mark)), setMark, &expr.Verdict{Kind: expr.VerdictAccept},
		}
	case redirect.SetMark:
		return []expr.Any{load(native(uint32(v))), setMark}
	case redirect.SaveMark:
		return []expr.Any{
			&expr.Meta{Key: expr.MetaKeyMARK, Register: register},
			&expr.Ct{Key: expr.CtKeyMARK, SourceRegister: true, Register: register},
		}
	case redirect.RestoreMark:
		return []expr.Any{&expr.Ct{Key: expr.CtKeyMARK, Register: register}, setMark}
	case redirect.SetZone:
		return []expr.Any{
			load(binary.NativeEndian.AppendUint16(nil, uint16(v))),
			&expr.Ct{Key: expr.CtKeyZONE, SourceRegister: true, Register: register},
		}
	}
	panic(fmt.Sprintf("netfilter: no nftables expression for %T", target))
}

func meta(key expr.MetaKey, op expr.CmpOp, data []byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: register}, compare(op, data)}
}

func compare(op expr.CmpOp, data []byte) expr.Any {
	return &expr.Cmp{Op: op, Register: register, Data: data}
}

func load(data []byte) expr.Any { return &expr.Immediate{Register: register, Data: data} }

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func portBytes(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }

// loadAddress loads the source or destination address from the IP header (RFC 791, section 3.1; RFC 8200, section 3).
func loadAddress(family redirect.Family, destination bool) expr.Any {
	offset, size := uint32(12), uint32(4)
	if family == redirect.IPv6 {
		offset, size = 8, 16
	}
	if destination {
		offset += size
	}
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size}
}

// loadPort loads a port from the transport header. For TCP and UDP the source is at byte 0, the destination at byte 2.
func loadPort(offset uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2}
}

// opening matches the flags in byte 13 of the TCP header (RFC 9293, section 3.1). nf_tables has the expressions
// payload, bitwise and cmp since Linux 3.13. Source: net/netfilter/nft_payload.c, nft_bitwise.c, nft_cmp.c.
func opening() []expr.Any {
	const offset, fin, syn, rst, ack = 13, 0x01, 0x02, 0x04, 0x10
	return []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 1},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 1, Mask: []byte{fin | syn | rst | ack},
			Xor: []byte{0}},
		compare(expr.CmpOpEq, []byte{syn}),
	}
}

// original matches the direction of the packet, and ofOriginal loads a field of the connection's original direction.
// Both end the rule for a packet without a connection. nf_tables has NFT_CT_DIRECTION and NFT_CT_PROTO_DST since Linux
// 3.14. Source: net/netfilter/nft_ct.c.
func original() []expr.Any {
	return []expr.Any{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: register}, compare(expr.CmpOpEq, []byte{dirOriginal})}
}

// addressKeys are NFT_CT_DST_IP and NFT_CT_DST_IP6, since Linux 4.17. nft(8) cannot list the older NFT_CT_DST. Source:
// include/uapi/linux/netfilter/nf_tables.h, enum nft_ct_keys.
var addressKeys = map[redirect.Family]expr.CtKey{redirect.IPv4: unix.NFT_CT_DST_IP, redirect.IPv6: unix.NFT_CT_DST_IP6}

const dirOriginal = 0 // IP_CT_DIR_ORIGINAL, include/uapi/linux/netfilter/nf_conntrack_tuple_common.h

func ofOriginal(key expr.CtKey) expr.Any {
	return &expr.Ct{Key: key, Register: register, Direction: dirOriginal}
}

// encode returns the attributes of an expression. The library encodes a connection's direction in four bytes. The
// kernel expects one (NFTA_CT_DIRECTION is NLA_U8), and logs a warning for more.
func encode(family redirect.Family, e expr.Any) (netlink.Attribute, error) {
	if ct, is := e.(*expr.Ct); is && (ct.Key == expr.CtKeyPROTODST || ct.Key >= addressKeys[redirect.IPv4]) {
		return netlink.Nested(unix.NFTA_LIST_ELEM, netlink.Text(unix.NFTA_EXPR_NAME, "ct"),
			netlink.Nested(unix.NFTA_EXPR_DATA, be32(unix.NFTA_CT_KEY, uint32(ct.Key)),
				be32(unix.NFTA_CT_DREG, ct.Register), netlink.Bytes(unix.NFTA_CT_DIRECTION, []byte{byte(ct.Direction)}))), nil
	}
	data, err := expr.Marshal(nfproto(family), e)
	return netlink.NestedBytes(unix.NFTA_LIST_ELEM, data), err
}

// connState matches the bit of a connection state, as nft does.
func connState(state redirect.ConnState) []expr.Any {
	bits := expr.CtStateBitINVALID
	if state == redirect.Established {
		bits = expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED
	}
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: native(bits), Xor: native(0)},
		compare(expr.CmpOpNeq, native(0)),
	}
}

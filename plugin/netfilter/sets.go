package netfilter

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables/expr"
	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

const (
	// anonymousSize is the largest number of elements for an anonymous set. nft lists such a set within the rule.
	anonymousSize = 64
	// elementsPerMessage keeps a list of elements below 64 KiB, the limit of a netlink attribute.
	elementsPerMessage = 1000
)

// keyType is the type of a set's keys, as nft numbers it. Source: nftables include/datatype.h, enum datatypes.
type keyType struct{ number, size, order uint32 }

var (
	keyIPv4      = keyType{7, 4, networkOrder}
	keyIPv6      = keyType{8, 16, networkOrder}
	keyPort      = keyType{13, 2, networkOrder}
	keyGroup     = keyType{25, 4, hostOrder}
	keyInterface = keyType{41, unix.IFNAMSIZ, hostOrder}
)

// element is a key, or the first key after an interval.
type element struct {
	key []byte
	end bool
}

// setMaker turns the list of a match into a comparison, or into a set and a lookup.
type setMaker struct {
	tx     *transaction
	family redirect.Family
	prefix string // the start of the names of large sets: the chain and the rule's number
}

// names matches an interface by any of the names. A single prefix is compared with the first bytes of the name. Several
// names with a prefix become intervals, because the kernel compares the keys of interval sets byte by byte.
func (s *setMaker) names(names []string) []expr.Any {
	if prefix, isPrefix := redirect.InterfacePrefix(names[0]); isPrefix && len(names) == 1 {
		return []expr.Any{compare(expr.CmpOpEq, []byte(prefix))}
	}
	if slices.ContainsFunc(names, isPrefix) {
		return []expr.Any{s.lookup(nameIntervals(names), keyInterface, true, false)}
	}
	keys := make([][]byte, len(names))
	for i, name := range names {
		keys[i] = interfaceKey(name)
	}
	return s.exact(keys, keyInterface, false)
}

func isPrefix(name string) bool { _, is := redirect.InterfacePrefix(name); return is }

// groups matches the group of the packet's socket.
func (s *setMaker) groups(groups []redirect.ID) []expr.Any {
	keys := make([][]byte, len(groups))
	for i, id := range groups {
		keys[i] = native(uint32(id))
	}
	return s.exact(keys, keyGroup, false)
}

// interfaceKey returns the name in the kernel's form: padded with zeros to IFNAMSIZ.
func interfaceKey(name string) []byte {
	key := make([]byte, unix.IFNAMSIZ)
	copy(key, name)
	return key
}

// nameIntervals turns sorted names into intervals. The end of a prefix is the prefix with its last byte plus one, that
// of a name the key with its last byte plus one.
func nameIntervals(names []string) []element {
	var elements []element
	for _, name := range names {
		text, isPrefix := redirect.InterfacePrefix(name)
		start, end := interfaceKey(text), interfaceKey(text)
		if isPrefix {
			end[len(text)-1]++
		} else {
			end[len(end)-1]++
		}
		elements = append(elements, element{key: start}, element{key: end, end: true})
	}
	return elements
}

// ports matches a port in any of the ranges. The kernel's interval sets are trees and its other sets are hash tables,
// so only a list with ranges becomes an interval set.
func (s *setMaker) ports(ranges []redirect.PortRange) []expr.Any {
	if slices.IndexFunc(ranges, isRange) < 0 {
		keys := make([][]byte, len(ranges))
		for i, r := range ranges {
			keys[i] = portBytes(r.First)
		}
		return s.exact(keys, keyPort, false)
	}
	if len(ranges) == 1 {
		return []expr.Any{
			compare(expr.CmpOpGte, portBytes(ranges[0].First)), compare(expr.CmpOpLte, portBytes(ranges[0].Last)),
		}
	}
	return []expr.Any{s.lookup(portIntervals(ranges), keyPort, true, false)}
}

func isRange(r redirect.PortRange) bool { return r.First != r.Last }

// portIntervals turns sorted ranges into intervals. It joins neighbours; an interval up to port 65535 has no end.
func portIntervals(ranges []redirect.PortRange) []element {
	var elements []element
	for i, r := range ranges {
		if i == 0 || int(ranges[i-1].Last)+1 < int(r.First) {
			elements = append(elements, element{key: portBytes(r.First)})
		}
		if last := i == len(ranges)-1; r.Last < 1<<16-1 && (last || r.Last+1 < ranges[i+1].First) {
			elements = append(elements, element{key: portBytes(r.Last + 1), end: true})
		}
	}
	return elements
}

func (s *setMaker) notPorts(ports []uint16) []expr.Any {
	keys := make([][]byte, len(ports))
	for i, port := range ports {
		keys[i] = portBytes(port)
	}
	return s.exact(keys, keyPort, true)
}

// exact matches one of the keys or, with invert, none of them.
func (s *setMaker) exact(keys [][]byte, kind keyType, invert bool) []expr.Any {
	if len(keys) == 1 {
		op := expr.CmpOpEq
		if invert {
			op = expr.CmpOpNeq
		}
		return []expr.Any{compare(op, keys[0])}
	}
	elements := make([]element, len(keys))
	for i, key := range keys {
		elements[i].key = key
	}
	return []expr.Any{s.lookup(elements, kind, false, invert)}
}

// prefixes matches an address in any of the prefixes.
func (s *setMaker) prefixes(prefixes []netip.Prefix) []expr.Any {
	if len(prefixes) == 1 {
		return onePrefix(prefixes[0])
	}
	kind := keyIPv4
	if prefixes[0].Addr().Is6() {
		kind = keyIPv6
	}
	return []expr.Any{s.lookup(intervals(prefixes), kind, true, false)}
}

func onePrefix(p netip.Prefix) []expr.Any {
	if p.IsSingleIP() {
		return []expr.Any{compare(expr.CmpOpEq, p.Addr().AsSlice())}
	}
	size := p.Addr().BitLen() / 8
	return []expr.Any{
		&expr.Bitwise{
			SourceRegister: register, DestRegister: register, Len: uint32(size), Mask: ipMask(p), Xor: make([]byte, size),
		},
		compare(expr.CmpOpEq, p.Addr().AsSlice()),
	}
}

// intervals turns sorted prefixes into the half-open intervals of a kernel set: a start, and as the end the first
// address after it. The kernel rejects overlaps, so it drops a prefix inside the one before. It joins adjacent
// prefixes. An interval up to the last address has no end.
func intervals(prefixes []netip.Prefix) []element {
	var elements []element
	for i := 0; i < len(prefixes); {
		elements = append(elements, element{key: prefixes[i].Addr().AsSlice()})
		end := after(prefixes[i])
		for i++; i < len(prefixes) && (!end.IsValid() || !end.Less(prefixes[i].Addr())); i++ {
			if prefixes[i].Addr() == end {
				end = after(prefixes[i])
			}
		}
		if end.IsValid() {
			elements = append(elements, element{key: end.AsSlice(), end: true})
		}
	}
	return elements
}

// after returns the first address after the prefix, or the zero Addr if there is none.
func after(p netip.Prefix) netip.Addr {
	last := p.Addr().AsSlice()
	for i, m := range ipMask(p) {
		last[i] |= ^m
	}
	addr, _ := netip.AddrFromSlice(last)
	return addr.Next()
}

func ipMask(p netip.Prefix) []byte { return net.CIDRMask(p.Bits(), p.Addr().BitLen()) }

// lookup adds a set to the transaction and returns the expression that looks up the register in it.
func (s *setMaker) lookup(elements []element, kind keyType, interval, invert bool) expr.Any {
	s.tx.sets++
	id, name, flags := s.tx.sets, s.prefix, uint32(0)
	if len(elements) <= anonymousSize {
		name, flags = "__set%d", unix.NFT_SET_ANONYMOUS|unix.NFT_SET_CONSTANT
	}
	if interval {
		flags |= unix.NFT_SET_INTERVAL
	}
	what := fmt.Sprintf("adding set %s %s", s.family, s.prefix)
	s.tx.put(what, unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, s.family,
		netlink.Text(unix.NFTA_SET_TABLE, redirect.TableName), netlink.Text(unix.NFTA_SET_NAME, name),
		be32(unix.NFTA_SET_FLAGS, flags), be32(unix.NFTA_SET_KEY_TYPE, kind.number),
		be32(unix.NFTA_SET_KEY_LEN, kind.size), be32(unix.NFTA_SET_ID, id),
		netlink.Nested(unix.NFTA_SET_DESC, be32(unix.NFTA_SET_DESC_SIZE, uint32(len(elements)))),
		netlink.Bytes(unix.NFTA_SET_USERDATA, userdata(keyByteOrderType, native(kind.order))))
	for chunk := range slices.Chunk(elements, elementsPerMessage) {
		s.tx.put(what, unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, s.family,
			netlink.Text(unix.NFTA_SET_ELEM_LIST_TABLE, redirect.TableName),
			netlink.Text(unix.NFTA_SET_ELEM_LIST_SET, name), be32(unix.NFTA_SET_ELEM_LIST_SET_ID, id),
			netlink.Nested(unix.NFTA_SET_ELEM_LIST_ELEMENTS, listOf(chunk)...))
	}
	return &expr.Lookup{SourceRegister: register, SetName: name, SetID: id, Invert: invert}
}

func listOf(elements []element) []netlink.Attribute {
	var list []netlink.Attribute
	for _, e := range elements {
		var item []netlink.Attribute
		if e.end {
			item = append(item, be32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END))
		}
		item = append(item, netlink.Nested(unix.NFTA_SET_ELEM_KEY, netlink.Bytes(unix.NFTA_DATA_VALUE, e.key)))
		list = append(list, netlink.Nested(unix.NFTA_LIST_ELEM, item...))
	}
	return list
}

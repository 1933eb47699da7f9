package netfilter

import (
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const (
	// anonymousSize is up to how many elements a set is written into its rule. nft lists such a set inside the rule.
	anonymousSize = 64
	// elementsPerMessage keeps a list of elements below the 64 KiB that a netlink attribute can hold.
	elementsPerMessage = 1000
)

// setMaker turns the list of a match into a comparison, or into a set and its lookup. Its error surfaces once per rule.
type setMaker struct {
	tx     *transaction
	table  *nftables.Table
	prefix string // of the names of large sets: chain and number of the rule
	err    error
}

func (s *setMaker) names(names []string) []expr.Any {
	keys := make([][]byte, len(names))
	for i, name := range names {
		keys[i] = make([]byte, unix.IFNAMSIZ)
		copy(keys[i], name)
	}
	return s.exact(keys, nftables.TypeIFName, false)
}

func (s *setMaker) ports(ports []uint16, invert bool) []expr.Any {
	keys := make([][]byte, len(ports))
	for i, port := range ports {
		keys[i] = portBytes(port)
	}
	return s.exact(keys, nftables.TypeInetService, invert)
}

// exact matches one of the keys, or none of them.
func (s *setMaker) exact(keys [][]byte, kind nftables.SetDatatype, invert bool) []expr.Any {
	if len(keys) == 1 {
		op := expr.CmpOpEq
		if invert {
			op = expr.CmpOpNeq
		}
		return []expr.Any{compare(op, keys[0])}
	}
	elements := make([]nftables.SetElement, len(keys))
	for i, key := range keys {
		elements[i].Key = key
	}
	return []expr.Any{s.lookup(elements, kind, false, invert)}
}

// prefixes matches an address in one of the prefixes.
func (s *setMaker) prefixes(prefixes []netip.Prefix) []expr.Any {
	if len(prefixes) == 1 {
		return onePrefix(prefixes[0])
	}
	kind := nftables.TypeIPAddr
	if prefixes[0].Addr().Is6() {
		kind = nftables.TypeIP6Addr
	}
	return []expr.Any{s.lookup(intervals(prefixes), kind, true, false)}
}

func onePrefix(p netip.Prefix) []expr.Any {
	if p.IsSingleIP() {
		return []expr.Any{compare(expr.CmpOpEq, p.Addr().AsSlice())}
	}
	size := p.Addr().BitLen() / 8
	return []expr.Any{
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: uint32(size), Mask: ipMask(p), Xor: make([]byte, size)},
		compare(expr.CmpOpEq, p.Addr().AsSlice()),
	}
}

// intervals turns sorted prefixes that do not overlap into the half-open intervals of a kernel set: a start, and an end
// that is the first address after; adjacent ones are joined, and the last address of all has no end.
func intervals(prefixes []netip.Prefix) []nftables.SetElement {
	var elements []nftables.SetElement
	for i := 0; i < len(prefixes); {
		elements = append(elements, nftables.SetElement{Key: prefixes[i].Addr().AsSlice()})
		end := after(prefixes[i])
		for i++; i < len(prefixes) && prefixes[i].Addr() == end; i++ {
			end = after(prefixes[i])
		}
		if end.IsValid() {
			elements = append(elements, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return elements
}

// after returns the first address after the prefix, invalid if there is none.
func after(p netip.Prefix) netip.Addr {
	last := p.Addr().AsSlice()
	for i, m := range ipMask(p) {
		last[i] |= ^m
	}
	addr, _ := netip.AddrFromSlice(last)
	return addr.Next()
}

func ipMask(p netip.Prefix) []byte { return net.CIDRMask(p.Bits(), p.Addr().BitLen()) }

// lookup adds a set to the transaction and returns the expression that looks a register up in it.
func (s *setMaker) lookup(elements []nftables.SetElement, kind nftables.SetDatatype, interval, invert bool) expr.Any {
	set := &nftables.Set{Table: s.table, KeyType: kind, Interval: interval, KeyByteOrder: binaryutil.BigEndian}
	switch {
	case kind == nftables.TypeIFName:
		// nft prints names right only if it is told their byte order, which google/nftables does for named sets alone.
		set.Name, set.KeyByteOrder = s.prefix, binaryutil.NativeEndian
	case len(elements) > anonymousSize:
		set.Name = s.prefix // google/nftables adds to a named set only, and would fix a constant one at its first part
	default:
		set.Anonymous, set.Constant = true, true
	}
	first, rest := split(elements)
	s.add(s.tx.conn.AddSet(set, first), len(first))
	for len(rest) > 0 {
		first, rest = split(rest)
		s.add(s.tx.conn.SetAddElements(set, first), len(first))
	}
	return &expr.Lookup{SourceRegister: register, SetName: set.Name, SetID: set.ID, Invert: invert}
}

func (s *setMaker) add(err error, elements int) {
	s.tx.messages += 2
	s.tx.elements += elements
	if s.err == nil {
		s.err = err
	}
}

func split(elements []nftables.SetElement) (first, rest []nftables.SetElement) {
	n := min(len(elements), elementsPerMessage)
	return elements[:n], elements[n:]
}

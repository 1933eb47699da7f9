package redirect

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/internal/excerpt"
)

// Prefixes is a set of address prefixes of both families, or all addresses.
type Prefixes struct {
	all  bool
	list []netip.Prefix // masked, sorted, unique; only a loopback prefix may be inside another prefix
}

// AllPrefixes returns the set of all addresses, written `*`.
func AllPrefixes() Prefixes { return Prefixes{all: true} }

// PrefixesOf returns the set of the given prefixes. It masks host bits and drops prefixes that are inside others, so
// that equal sets have one form. It keeps a loopback prefix inside one that is not: only an explicit loopback prefix
// has loopback traffic captured (see capturesLoopback).
func PrefixesOf(prefixes ...netip.Prefix) Prefixes {
	sorted := make([]netip.Prefix, 0, len(prefixes))
	for _, p := range prefixes {
		sorted = append(sorted, p.Masked())
	}
	sortBy(sorted, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	var list []netip.Prefix
	var last [2]netip.Prefix // the last other prefix and the last loopback one: only these can contain the next
	for _, p := range sorted {
		class := 0
		if p.Addr().IsLoopback() {
			class = 1
		}
		if !last[class].Contains(p.Addr()) {
			list, last[class] = append(list, p), p
		}
	}
	return Prefixes{list: list}
}

// ParsePrefixes parses `*` or a comma-separated list of CIDR prefixes of both families. As in Istio, spaces and
// addresses without a prefix length are errors; overlaps, duplicates and host bits are accepted. Empty text is the
// empty set.
func ParsePrefixes(text string) (Prefixes, error) {
	switch text {
	case "":
		return Prefixes{}, nil
	case wildcard:
		return AllPrefixes(), nil
	}
	var list []netip.Prefix
	for i, item := range strings.Split(text, ",") {
		p, err := netip.ParsePrefix(item)
		if err != nil {
			return Prefixes{}, fmt.Errorf("item %d, %s, is not a prefix in CIDR notation", i+1, excerpt.Quote(item))
		}
		list = append(list, p)
	}
	return PrefixesOf(list...), nil
}

// All reports whether the set contains every address.
func (p Prefixes) All() bool { return p.all }

// Of returns the prefixes of one family in ascending order; nil if All.
func (p Prefixes) Of(family Family) []netip.Prefix {
	var list []netip.Prefix
	for _, prefix := range p.list {
		if prefix.Addr().Is4() == (family == IPv4) {
			list = append(list, prefix)
		}
	}
	return list
}

// String returns the form that ParsePrefixes parses.
func (p Prefixes) String() string {
	return listText(p.all, p.list)
}

// Interfaces is a sorted set of network interface names without duplicates. A name that ends in `*` matches every name
// that starts with the part before it.
type Interfaces []string

// maxInterfaceName is the longest interface name in bytes: IFNAMSIZ (linux/if.h) without its terminating zero.
const maxInterfaceName = 15

// ParseInterfaces parses a comma-separated list of interface names. A name has at most 15 bytes: letters, digits, `.`,
// `_`, `-`, `:` and `@`; a `*` at its end makes it a prefix. Spaces around a name are accepted. `+` is an error,
// because iptables would treat it as a wildcard, and so is `*` alone, which would match every interface.
func ParseInterfaces(text string) (Interfaces, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var list Interfaces
	for i, item := range strings.Split(text, ",") {
		name := strings.TrimSpace(item)
		switch {
		case name == "" || name == "." || name == "..":
			return nil, fmt.Errorf("item %d, %s, is not an interface name", i+1, excerpt.Quote(item))
		case len(name) > maxInterfaceName:
			return nil, fmt.Errorf("item %d, %s, is longer than %d bytes", i+1, excerpt.Quote(item), maxInterfaceName)
		}
		prefix, isPrefix := InterfacePrefix(name)
		if bad := strings.IndexFunc(prefix, notInInterfaceName); bad >= 0 {
			return nil, fmt.Errorf("item %d, %s, has the character %q", i+1, excerpt.Quote(item), []rune(prefix[bad:])[0])
		}
		if isPrefix && prefix == "" {
			return nil, fmt.Errorf("item %d, %s, is every interface", i+1, excerpt.Quote(item))
		}
		list = append(list, name)
	}
	return list.normalized(), nil
}

// InterfacePrefix returns the part of a name in Interfaces before its `*`, or the whole name if it has none.
func InterfacePrefix(name string) (prefix string, isPrefix bool) {
	return strings.CutSuffix(name, wildcard)
}

// Has reports whether the set matches the interface.
func (i Interfaces) Has(name string) bool {
	return slices.ContainsFunc(i, func(item string) bool {
		prefix, isPrefix := InterfacePrefix(item)
		return item == name || isPrefix && strings.HasPrefix(name, prefix)
	})
}

// normalized returns the canonical form of the set. The names are sorted without their `*`, so a prefix comes directly
// before all names that it matches.
func (i Interfaces) normalized() Interfaces {
	sorted := slices.Clone(i)
	sortBy(sorted, func(a, b string) int {
		first, _ := InterfacePrefix(a)
		second, _ := InterfacePrefix(b)
		return cmp.Or(strings.Compare(first, second), len(b)-len(a))
	})
	var list Interfaces
	for _, name := range sorted {
		if last := len(list) - 1; last >= 0 {
			prefix, isPrefix := InterfacePrefix(list[last])
			if name == list[last] || isPrefix && strings.HasPrefix(name, prefix) {
				continue
			}
		}
		list = append(list, name)
	}
	return list
}

func notInInterfaceName(r rune) bool {
	alphanumeric := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
	return !alphanumeric && !strings.ContainsRune("._-:@", r)
}

// String returns the form that ParseInterfaces parses.
func (i Interfaces) String() string { return strings.Join(i, ",") }

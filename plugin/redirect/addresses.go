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
	list []netip.Prefix // masked, sorted, unique; only a loopback prefix may lie inside another
}

// AllPrefixes is the set of every address, written `*`.
func AllPrefixes() Prefixes { return Prefixes{all: true} }

// PrefixesOf returns the set of the given prefixes; host bits are masked and prefixes inside others dropped, so that
// two spellings of a set are equal. A loopback prefix inside one that is not stays: to name it asks for more than to
// hold it (see containsLoopback).
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
	var last [2]netip.Prefix // of other prefixes, of loopback ones; in this order only the last can hold the next
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

// ParsePrefixes reads `*` or a comma-separated list of CIDR prefixes of either family. As in Istio, no spaces and no
// bare addresses; overlaps, repeats and set host bits are accepted. Empty text is the empty set.
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

// All reports whether the set holds every address.
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

// String returns the form that ParsePrefixes reads.
func (p Prefixes) String() string {
	return listText(p.all, p.list)
}

// Interfaces is a set of network interface names, sorted and unique. One that ends in `*` stands for all that begin
// with what is before it.
type Interfaces []string

// maxInterfaceName is IFNAMSIZ less its terminating zero, in bytes.
const maxInterfaceName = 15

// ParseInterfaces reads a comma-separated list of interface names of at most 15 bytes out of letters, digits, `.`, `_`,
// `-`, `:` and `@`; a `*` at the end makes a prefix of a name. Spaces around an item are accepted. `+` is not, for
// iptables would read it as a wildcard, nor `*` alone, which would be every interface.
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

// InterfacePrefix returns what a name of Interfaces says before its `*`, or the whole name if it has none.
func InterfacePrefix(name string) (prefix string, isPrefix bool) {
	return strings.CutSuffix(name, wildcard)
}

// Has reports whether the set holds the interface.
func (i Interfaces) Has(name string) bool {
	return slices.ContainsFunc(i, func(item string) bool {
		prefix, isPrefix := InterfacePrefix(item)
		return item == name || isPrefix && strings.HasPrefix(name, prefix)
	})
}

// normalized returns the set in its one form. In the order of what comes before `*`, a prefix stands right before all
// that it stands for.
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

// String returns the form that ParseInterfaces reads.
func (i Interfaces) String() string { return strings.Join(i, ",") }

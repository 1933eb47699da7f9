package redirect

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/istio-pod-network/controller/internal/excerpt"
)

// Port is a TCP or UDP port, 1 to 65535.
type Port uint16

// ParsePort reads a decimal port, 1 to 65535.
func ParsePort(text string) (Port, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, errors.New("not a port number")
	}
	return Port(n), nil
}

// ID is a user or group ID as seen inside the pod, 0 to 4294967294 (2^32-1 is the kernel's "no ID").
type ID uint32

// ParseID reads a decimal user or group ID.
func ParseID(text string) (ID, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n == 1<<32-1 {
		return 0, errors.New("not a user or group ID")
	}
	return ID(n), nil
}

// Groups is a set of group IDs, or all groups.
type Groups struct {
	all  bool
	list []ID // sorted, unique
}

// AllGroups is the set of every group, written `*`.
func AllGroups() Groups { return Groups{all: true} }

// ParseGroups reads `*` or a comma-separated list of decimal group IDs, with spaces around an item or without. A name,
// which Istio would look up in its own image, is not one. Empty text is the empty set.
func ParseGroups(text string) (Groups, error) {
	switch strings.TrimSpace(text) {
	case "":
		return Groups{}, nil
	case wildcard:
		return AllGroups(), nil
	}
	var list []ID
	for i, item := range strings.Split(text, ",") {
		id, err := ParseID(strings.TrimSpace(item))
		if err != nil {
			return Groups{}, fmt.Errorf("item %d, %s, is not a group ID", i+1, excerpt.Quote(item))
		}
		list = append(list, id)
	}
	sortBy(list, cmp.Compare[ID])
	return Groups{list: slices.Compact(list)}, nil
}

// All reports whether the set holds every group.
func (g Groups) All() bool { return g.all }

// List returns the groups in ascending order; nil if All.
func (g Groups) List() []ID { return g.list }

// has reports whether the set holds the group.
func (g Groups) has(id ID) bool { return g.all || slices.Contains(g.list, id) }

// among returns the groups of a set for which keep is true; of all groups, all.
func (g Groups) among(keep func(ID) bool) Groups {
	return Groups{all: g.all, list: slices.DeleteFunc(slices.Clone(g.list), func(id ID) bool { return !keep(id) })}
}

// String returns the form that ParseGroups reads.
func (g Groups) String() string {
	return listText(g.all, g.list)
}

// Mode is how inbound traffic reaches the sidecar (annotation sidecar.istio.io/interceptionMode).
type Mode string

// The interception modes.
const (
	ModeRedirect Mode = "REDIRECT" // destination NAT: the sidecar sees no client address at its socket
	ModeTProxy   Mode = "TPROXY"   // inbound keeps the client's source address
	ModeNone     Mode = "NONE"     // nothing is redirected
)

// ParseMode reads an interception mode, exactly as written here: Istio knows no other spelling.
func ParseMode(text string) (Mode, error) {
	switch mode := Mode(text); mode {
	case ModeRedirect, ModeTProxy, ModeNone:
		return mode, nil
	}
	return "", errors.New("unknown mode")
}

// PortRange is the ports from First to Last, both of them included.
type PortRange struct{ First, Last uint16 }

// String returns the port, or both ends with a hyphen between, as nft(8) writes it too.
func (r PortRange) String() string {
	if r.First == r.Last {
		return portText(r.First)
	}
	return portText(r.First) + "-" + portText(r.Last)
}

// Ports is a set of ports, or all of them.
type Ports struct {
	all  bool
	list []PortRange // sorted; a range has at least three ports, else they stand alone, and no two can be joined
}

// wildcard stands for everything in the lists that allow it.
const wildcard = "*"

// listText is the form of a set that its parser reads.
func listText[T fmt.Stringer](all bool, list []T) string {
	if all {
		return wildcard
	}
	items := make([]string, len(list))
	for i, item := range list {
		items[i] = item.String()
	}
	return strings.Join(items, ",")
}

// AllPorts is the set of every port, written `*`.
func AllPorts() Ports { return Ports{all: true} }

// PortsOf returns the set of the given ports.
func PortsOf(ports ...uint16) Ports { return Ports{list: normalized(singles(ports))} }

func singles(ports []uint16) []PortRange {
	list := make([]PortRange, len(ports))
	for i, p := range ports {
		list[i] = PortRange{p, p}
	}
	return list
}

// normalized returns the same ports in the one form that Ports keeps, so that two spellings of a set are equal.
func normalized(ranges []PortRange) []PortRange {
	sorted := slices.Clone(ranges)
	sortBy(sorted, func(a, b PortRange) int { return int(a.First) - int(b.First) })
	var joined, list []PortRange
	for _, r := range sorted {
		if last := len(joined) - 1; last >= 0 && int(r.First) <= int(joined[last].Last)+1 {
			joined[last].Last = max(joined[last].Last, r.Last)
		} else {
			joined = append(joined, r)
		}
	}
	for _, r := range joined {
		if r.Last-r.First == 1 {
			list = append(list, PortRange{r.First, r.First}, PortRange{r.Last, r.Last})
		} else {
			list = append(list, r)
		}
	}
	return list
}

// ParsePorts reads `*` or a comma-separated list of decimal ports 0 to 65535 and of ranges such as 8000-8100, the lower
// end first. As in Istio, which knows no ranges, spaces around an item and port 0 are accepted; signs, empty items and
// `*` among others are not. Empty text is the empty set.
func ParsePorts(text string) (Ports, error) {
	if strings.TrimSpace(text) == "" {
		return Ports{}, nil
	}
	if text == wildcard {
		return AllPorts(), nil
	}
	var list []PortRange
	for i, item := range strings.Split(text, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(item), "-")
		if !isRange {
			last = first
		}
		low, err := strconv.ParseUint(first, 10, 16)
		high, otherErr := strconv.ParseUint(last, 10, 16)
		switch {
		case err != nil || otherErr != nil:
			return Ports{}, fmt.Errorf("item %d, %s, is not a port or a range of ports", i+1, excerpt.Quote(item))
		case low > high:
			return Ports{}, fmt.Errorf("item %d, %s, has its higher end first", i+1, excerpt.Quote(item))
		}
		list = append(list, PortRange{uint16(low), uint16(high)})
	}
	return Ports{list: normalized(list)}, nil
}

// All reports whether the set holds every port.
func (p Ports) All() bool { return p.all }

// Empty reports whether the set holds no port.
func (p Ports) Empty() bool { return !p.all && len(p.list) == 0 }

// List returns the ports in ascending order, each once, runs of three and more as ranges; nil if All.
func (p Ports) List() []PortRange { return p.list }

// union returns the ports of both sets.
func (p Ports) union(more ...uint16) Ports {
	if p.all {
		return p
	}
	return Ports{list: normalized(append(singles(more), p.list...))}
}

func (p Ports) has(port uint16) bool {
	return p.all || slices.ContainsFunc(p.list, func(r PortRange) bool { return r.First <= port && port <= r.Last })
}

// without returns the set less some ports; every port less some is still All.
func (p Ports) without(ports ...uint16) Ports {
	for _, port := range ports {
		p = p.withoutOne(port)
	}
	return p
}

func (p Ports) withoutOne(port uint16) Ports {
	var list []PortRange
	for _, r := range p.list {
		if port < r.First || port > r.Last {
			list = append(list, r)
			continue
		}
		if port > r.First {
			list = append(list, PortRange{r.First, port - 1})
		}
		if port < r.Last {
			list = append(list, PortRange{port + 1, r.Last})
		}
	}
	return Ports{all: p.all, list: normalized(list)}
}

// String returns the form that ParsePorts reads.
func (p Ports) String() string {
	return listText(p.all, p.list)
}

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

package redirect

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/istio-pod-network/controller/internal/excerpt"
)

// Port is a TCP or UDP port, 1 to 65535.
type Port uint16

// ParsePort parses a decimal port, 1 to 65535.
func ParsePort(text string) (Port, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, errors.New("not a port number")
	}
	return Port(n), nil
}

// PortRange is the ports from First to Last, inclusive.
type PortRange struct{ First, Last uint16 }

// String returns the port, or both ends joined by a hyphen, as in nft(8).
func (r PortRange) String() string {
	if r.First == r.Last {
		return portText(r.First)
	}
	return portText(r.First) + "-" + portText(r.Last)
}

// Ports is a set of ports, or all of them.
type Ports struct {
	all  bool
	list []PortRange // sorted and merged; a range has at least three ports, two neighbours stand alone
}

// AllPorts returns the set of all ports, written `*`.
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

// normalized returns the canonical form of the ports, so that equal sets are equal lists.
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

// ParsePorts parses `*` or a comma-separated list of decimal ports 0 to 65535 and of ranges such as 8000-8100, the
// lower end first. Istio has no ranges. As in Istio, spaces around an item and port 0 are accepted; signs, empty items,
// and `*` within a list are errors. Empty text is the empty set.
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

// All reports whether the set contains every port.
func (p Ports) All() bool { return p.all }

// Empty reports whether the set contains no port.
func (p Ports) Empty() bool { return !p.all && len(p.list) == 0 }

// List returns the ports in ascending order without duplicates, three or more neighbours as a range; nil if All.
func (p Ports) List() []PortRange { return p.list }

// union returns the ports of the set and the given ones.
func (p Ports) union(more ...uint16) Ports {
	if p.all {
		return p
	}
	return Ports{list: normalized(append(singles(more), p.list...))}
}

func (p Ports) has(port uint16) bool {
	return p.all || slices.ContainsFunc(p.list, func(r PortRange) bool { return r.First <= port && port <= r.Last })
}

// without returns the set without the given ports. All stays All.
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

// String returns the form that ParsePorts parses.
func (p Ports) String() string {
	return listText(p.all, p.list)
}

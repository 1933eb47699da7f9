package testnet

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Profile is a set of settings to test.
type Profile struct {
	Name string
	// Settings are keys of the `redirect` object of the CNI configuration. A missing key has its default.
	Settings map[string]any
}

// JSON returns the settings as a `redirect` object.
func (p Profile) JSON() []byte {
	raw, err := json.Marshal(p.Settings)
	if err != nil {
		panic(fmt.Sprintf("profile %q: %v", p.Name, err)) // a mistake in the tables of this package
	}
	return raw
}

// Open reports whether the profile does not capture the family.
func (p Profile) Open(family Family) bool { return p.settings().in(family).none }

// OfBothFamilies returns the profile with both families captured.
func (p Profile) OfBothFamilies() Profile {
	settings := maps.Clone(p.Settings)
	delete(settings, "families")
	return Profile{p.Name + " of both families", settings}
}

// settings is a profile as the expectations use it. The product's parser is not used, so that its mistakes show.
type settings struct {
	none, tproxy, dns, dropInvalid                   bool
	outboundPort, inboundPort, dnsPort               uint16
	proxyUID, proxyGID                               int
	includeRanges, excludeRanges                     []netip.Prefix
	includeOutPorts, excludeOutPorts                 portList
	includeInPorts, excludeInPorts                   portList
	allRanges, allInPorts, allOutPorts, loopbackCIDR bool
	excludeInterfaces, rerouteInterfaces             []string
	allGroups                                        bool
	includeGroups, excludeGroups                     []int
	onlyFamily                                       Family // the only captured family; 0: both
}

// settings parses the profile. It panics on an invalid value, which is a mistake in the tables.
func (p Profile) settings() settings {
	text := func(key, missing string) string {
		if value, present := p.Settings[key]; present {
			return fmt.Sprint(value)
		}
		return missing
	}
	s := settings{
		none:   text("mode", "REDIRECT") == "NONE",
		tproxy: text("mode", "REDIRECT") == "TPROXY", dns: text("dnsCapture", "false") == "true",
		dropInvalid:  text("dropInvalid", "false") == "true",
		outboundPort: port(text("outboundPort", "15001")), inboundPort: port(text("inboundPort", "15006")),
		dnsPort: port(text("dnsPort", "15053")), proxyUID: int(number(text("proxyUID", "1337"))),
		proxyGID:          int(number(text("proxyGID", "1337"))),
		excludeRanges:     prefixes(text("excludeOutboundIPRanges", "")),
		excludeOutPorts:   ports(text("excludeOutboundPorts", "")),
		excludeInterfaces: list(text("excludeInterfaces", "")),
		rerouteInterfaces: list(text("rerouteVirtualInterfaces", "")),
	}
	if s.allRanges = text("includeOutboundIPRanges", "*") == "*"; !s.allRanges {
		s.includeRanges = prefixes(text("includeOutboundIPRanges", ""))
	}
	if s.allOutPorts = text("includeOutboundPorts", "") == "*"; !s.allOutPorts {
		s.includeOutPorts = ports(text("includeOutboundPorts", ""))
	}
	if s.allInPorts = text("includeInboundPorts", "*") == "*"; !s.allInPorts {
		s.includeInPorts = ports(text("includeInboundPorts", ""))
	}
	if s.allGroups = text("includeOutboundOwnerGroups", "*") == "*"; !s.allGroups {
		s.includeGroups = groups(text("includeOutboundOwnerGroups", ""))
	}
	s.excludeGroups = groups(text("excludeOutboundOwnerGroups", ""))
	// A sidecar without dual stack listens in IPv4 if the pod has both families, as in the labs with such a profile.
	s.onlyFamily = map[string]Family{"IPv4": IPv4, "IPv6": IPv6, "proxy": IPv4}[text("families", "all")]
	// Istio adds its own three ports to every list.
	s.excludeInPorts = append(ports(text("excludeInboundPorts", "")), ports("15020,15021,15090")...)
	s.loopbackCIDR = slices.ContainsFunc(s.includeRanges, func(p netip.Prefix) bool { return p.Addr().IsLoopback() })
	return s
}

// in returns the settings for one family: those of NONE if it is not captured.
func (s settings) in(family Family) settings {
	if s.onlyFamily != 0 && s.onlyFamily != family {
		s.none, s.tproxy, s.dns, s.dropInvalid = true, false, false, false
	}
	return s
}

func list(text string) []string {
	if text == "" {
		return nil
	}
	items := strings.Split(text, ",")
	for i := range items {
		items[i] = strings.TrimSpace(items[i])
	}
	return items
}

// named reports whether a list of interface names matches the name; a list may have prefixes.
func named(list []string, name string) bool {
	return slices.ContainsFunc(list, func(item string) bool {
		prefix, isPrefix := strings.CutSuffix(item, "*")
		return item == name || isPrefix && strings.HasPrefix(name, prefix)
	})
}

func number(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		panic(err)
	}
	return n
}

func port(text string) uint16 { return uint16(number(text)) }

// portList has ports as ranges, from first to last.
type portList [][2]uint16

func ports(text string) (parsed portList) {
	for _, item := range list(text) {
		first, last, found := strings.Cut(item, "-")
		if !found {
			last = first
		}
		parsed = append(parsed, [2]uint16{port(first), port(last)})
	}
	return parsed
}

func (l portList) has(port uint16) bool {
	return slices.ContainsFunc(l, func(r [2]uint16) bool { return r[0] <= port && port <= r[1] })
}

func groups(text string) (parsed []int) {
	for _, item := range list(text) {
		parsed = append(parsed, int(number(item)))
	}
	return parsed
}

func prefixes(text string) (parsed []netip.Prefix) {
	for _, item := range list(text) {
		parsed = append(parsed, netip.MustParsePrefix(item))
	}
	return parsed
}

func contains(prefixes []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}

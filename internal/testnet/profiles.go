package testnet

// BaseProfiles are the settings that the others vary.
var BaseProfiles = []Profile{
	{"default", map[string]any{}},
	{"tproxy", map[string]any{"mode": "TPROXY"}},
	{"dns", map[string]any{"dnsCapture": true}},
	{"tproxy-dns", map[string]any{"mode": "TPROXY", "dnsCapture": true}},
}

// Profiles are the settings with which the flows are tested. Every rule of Istio's rule sets is in one of them, in
// every mode.
var Profiles = append(append(BaseProfiles[:len(BaseProfiles):len(BaseProfiles)],
	Profile{"dns-exclude-interfaces", map[string]any{"dnsCapture": true, "excludeInterfaces": "net1,net7"}},
), combined([]Profile{
	{"include-ranges", map[string]any{"includeOutboundIPRanges": "10.96.0.0/16,fd96::/64"}},
	{"exclude-ranges",
		map[string]any{"excludeOutboundIPRanges": "10.96.0.0/16,203.0.113.0/24,fd96::/64,2001:db8:7::/48"}},
	{"include-exclude-ranges", map[string]any{"includeOutboundIPRanges": "10.0.0.0/8,fd00::/8",
		"excludeOutboundIPRanges": "10.96.0.0/16,fd96::/64"}},
	{"loopback-range", map[string]any{"includeOutboundIPRanges": "127.0.0.0/8,10.96.0.0/16,::1/128,fd96::/64"}},
	{"no-outbound", map[string]any{"includeOutboundIPRanges": ""}},
	{"include-ports", map[string]any{"includeOutboundIPRanges": "10.96.0.0/16,fd96::/64",
		"includeOutboundPorts": "440-450,9090"}},
	{"all-ports", map[string]any{"includeOutboundIPRanges": "", "includeOutboundPorts": "*"}},
	{"exclude-ports", map[string]any{"excludeOutboundPorts": "8081-8090,9090"}},
	{"include-inbound", map[string]any{"includeInboundPorts": "7002,8080,9090", "excludeInboundPorts": "8080"}},
	{"exclude-inbound", map[string]any{"excludeInboundPorts": "8081-9090"}},
	{"no-inbound", map[string]any{"includeInboundPorts": ""}},
	{"exclude-interfaces", map[string]any{"excludeInterfaces": "net*,tap7"}},
	{"drop-invalid", map[string]any{"dropInvalid": true}},
	{"custom-ports", map[string]any{"outboundPort": 15101, "inboundPort": 15106, "dnsPort": 15153, "dnsCapture": true}},
	{"custom-ids", map[string]any{"proxyUID": 2000, "proxyGID": 2001, "dnsCapture": true}},
	{"dns-exclude-ports", map[string]any{"dnsCapture": true, "excludeOutboundPorts": "53"}},
	{"dns-no-outbound", map[string]any{"dnsCapture": true, "includeOutboundIPRanges": ""}},
	{"reroute", map[string]any{"rerouteVirtualInterfaces": "net1"}},
	{"reroute-ranges", map[string]any{"rerouteVirtualInterfaces": "ne*",
		"includeOutboundIPRanges": "10.96.0.0/16,203.0.113.0/24,fd96::/64,2001:db8:7::/48"}},
	{"exclude-groups", map[string]any{"excludeOutboundOwnerGroups": "5100,7000", "dnsCapture": true}},
	{"include-groups", map[string]any{"includeOutboundOwnerGroups": "1337,5000", "dnsCapture": true}},
})...)

// FamilyProfiles capture one family of a pod that may have both.
var FamilyProfiles = combined([]Profile{
	{"IPv4-alone", map[string]any{"families": "IPv4", "dnsCapture": true}},
	{"IPv6-alone", map[string]any{"families": "IPv6", "dnsCapture": true}},
})

// NoRules is a pod without redirection: the control.
var NoRules = Profile{"none", map[string]any{"mode": "NONE"}}

// combined returns each profile in REDIRECT and in TPROXY mode.
func combined(profiles []Profile) (both []Profile) {
	for _, p := range profiles {
		settings := map[string]any{"mode": "TPROXY"}
		for key, value := range p.Settings {
			settings[key] = value
		}
		both = append(both, p, Profile{"tproxy-" + p.Name, settings})
	}
	return both
}

// ProfileNamed returns the profile of Profiles with that name.
func ProfileNamed(name string) (p Profile, found bool) {
	for _, p := range Profiles {
		if p.Name == name {
			return p, true
		}
	}
	return Profile{}, false
}

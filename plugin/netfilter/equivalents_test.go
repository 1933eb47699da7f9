package netfilter

import (
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// equivalents are rules whose absence no packet shows, and the reason. Each is listed with the profiles for which that
// is true.
var equivalents = []struct {
	chain, text string // text is a part of the rule
	in          func(testnet.Profile) bool
	reason      string
}{
	{"mangle-istio-inbound", "meta mark 1337 return", tproxyBut(),
		"such packets come by lo, where the rule for what is not marked 1338 lets them pass as well"},
	{"mangle-istio-output", "meta skuid ", tproxyBut(), "nat redirects the user's packets to the same listener"},
	{"mangle-istio-inbound", "jump mangle-istio-divert", called("tproxy-include-inbound"),
		"no answer to a connection of the pod's own goes to a listed port, and of others TPROXY finds the open socket by " +
			"itself"},
	{"mangle-istio-divert", "accept", called("tproxy-include-inbound"), "likewise"},
	{"mangle-istio-output", `oifname { "net*", "tap7" } return`, tproxyBut(),
		"what follows is for packets on lo, and for clients whose connections the sidecar took: none by these interfaces"},

	{"mangle-istio-inbound", `iifname "lo" `, called("tproxy-no-inbound"), "no rule follows"},
	{"mangle-istio-output", "meta mark set 1338", called("tproxy-no-inbound"), "no inbound rule asks for the mark"},
	{"nat-istio-inbound", "return", tproxyBut(), "inbound traffic is mangle's in this mode: no rule follows"},
	{"nat-istio-inbound", `iifname "net1" return`, called("reroute"), "all TCP has gone to the outbound listener"},

	{"nat-istio-output", `oifname "lo" return`, called("no-outbound", "tproxy-no-outbound"), "no rule follows"},
	{"nat-istio-output", `oifname "lo" meta l4proto tcp th dport != 53 return`,
		called("dns-no-outbound", "tproxy-dns-no-outbound"),
		"what follows is for port 53"},
	{"nat-istio-output", "meta skuid 1337 return", called("no-outbound", "tproxy-no-outbound"),
		"nothing that follows captures"},
	{"nat-istio-output", "meta skgid 1337 return", called("no-outbound", "tproxy-no-outbound"),
		"nothing that follows captures"},
	{"nat-istio-output", "meta l4proto udp th dport { 8081-8090, 9090 } return",
		called("exclude-ports", "tproxy-exclude-ports"),
		"UDP is captured for DNS only"},
	{"nat-istio-output", "redirect to :15053", called("dns-exclude-ports", "tproxy-dns-exclude-ports"),
		"port 53 has been excluded"},
}

// unguarded are rules of the guard, and related ones, whose absence no attempt of the profile shows. Without a family
// an entry is about both.
var unguarded = []struct {
	family      redirect.Family
	chain, text string
	in          func(testnet.Profile) bool
	reason      string
}{
	{0, "filter-istio-forward", "", called("dns-exclude-interfaces", "exclude-interfaces", "include-inbound",
		"drop-invalid"), "what the machine behind the pod sends is not captured, or its answer is invalid"},
	{0, "filter-istio-guard-in", `iifname "net1" return`, called("reroute", "tproxy-reroute"),
		"all TCP of the interface is dropped before, and in TPROXY mode nothing follows"},
	{0, "filter-istio-guard-in", `iifname "ne*" return`, called("tproxy-reroute-ranges"), "nothing follows"},
	{0, "filter-istio-input", "th dport 15001 return", called("reroute-ranges", "tproxy-reroute-ranges"),
		"the pod's own address is in none of the ranges"},
	{0, "filter-istio-input", "iifname \"lo\" return", called("tproxy-reroute", "tproxy-reroute-ranges"),
		"what follows is for net1"},
	{0, "filter-istio-input", "jump filter-istio-guard-in", called("tproxy-reroute", "tproxy-reroute-ranges"),
		"no attempt from net1 is for the pod itself"},
	{0, "filter-istio-guard-out", "/128 meta l4proto tcp th dport 15001 return", rangesOnly,
		"::1 is in none of the ranges"},
	{0, "filter-istio-guard-out", "/32 meta l4proto tcp th dport 15001 return", rangesOnly,
		"127.0.0.1 is in none of the ranges"},
	{0, "filter-istio-guard-out", `oifname "lo" return`, called("dns-no-outbound", "tproxy-dns-no-outbound"),
		"what follows is for port 53"},
	{0, "filter-istio-guard-out", "th dport { 15001, 15053 } return", called("dns-no-outbound", "tproxy-dns-no-outbound"),
		"likewise"},
	{0, "filter-istio-guard-out", "udp th dport 53 drop", allBut(),
		"what is redirected has a conntrack zone of its own, in which nothing else leaves an entry"},
	{0, "filter-istio-output", "udp th dport 53 jump", allBut(), "likewise"},
	{0, "filter-istio-guard-out", "tcp th dport 53 drop", allBut("dns-no-outbound", "tproxy-dns-no-outbound"),
		"all TCP is dropped further down, or the port is excluded"},
	{0, "filter-istio-guard-groups", "udp th dport 53 drop", allBut(), "no interface is excluded"},
	{0, "filter-istio-guard-groups", "tcp th dport 53 drop", allBut(), "all TCP is dropped further down"},
	{redirect.IPv4, "filter-istio-guard-in", "ct original proto-dst", called("include-inbound"),
		"the server's SYN is an answer, which in IPv6 it is not"},
	{redirect.IPv6, "filter-istio-guard-in", "th dport { 7002, 8080, 9090 } drop", called("include-inbound"),
		"an answer it is in IPv4 alone"},
	{redirect.IPv6, "mangle-istio-inbound", "== syn ", tproxyBut(),
		"an entry that makes a SYN from outside an answer takes a way by lo, which IPv6 has not"},
	{redirect.IPv4, "mangle-istio-inbound", "jump mangle-istio-tproxy", tproxyBut(),
		"but for what opens a connection: that is of connections older than the rules, see TestEstablished"},
	{redirect.IPv6, "mangle-istio-inbound", "jump mangle-istio-tproxy", tproxyBut("tproxy-include-ranges",
		"tproxy-exclude-ranges", "tproxy-include-exclude-ranges", "tproxy-loopback-range", "tproxy-no-outbound",
		"tproxy-include-ports", "tproxy-dns-no-outbound", "tproxy-reroute-ranges"), "likewise"},
}

// heldByTranslated reports whether TestTranslated covers the rule. Two rules let excluded traffic pass, one for each
// direction of a connection, and an attempt shows the absence of one of them only by chance.
func heldByTranslated(m mutant) bool {
	return strings.HasPrefix(m.chain, "filter-istio-guard-") && lets.MatchString(m.why) && m.why != "excluded inbound port"
}

var rangesOnly = called("include-ranges", "tproxy-include-ranges", "include-exclude-ranges",
	"tproxy-include-exclude-ranges", "include-ports", "tproxy-include-ports", "reroute-ranges", "tproxy-reroute-ranges")

func allBut(names ...string) func(testnet.Profile) bool {
	return func(p testnet.Profile) bool { return !slices.Contains(names, p.Name) }
}

func called(names ...string) func(testnet.Profile) bool {
	return func(p testnet.Profile) bool { return slices.Contains(names, p.Name) }
}

func tproxyBut(names ...string) func(testnet.Profile) bool {
	return func(p testnet.Profile) bool { return p.Settings["mode"] == "TPROXY" && !slices.Contains(names, p.Name) }
}

// equivalent returns the reason why the mutant changes nothing, or "" if a flow must show it.
func equivalent(profile testnet.Profile, m mutant, family redirect.Family) string {
	tproxyOpening := m.chain == "mangle-istio-inbound" && strings.Contains(m.text, "== syn ")
	for _, e := range unguarded {
		if m.chain != e.chain || !strings.Contains(m.text, e.text) || !e.in(profile) || e.family != 0 && e.family != family {
			continue
		}
		if tproxyOpening && e.family == redirect.IPv4 {
			continue // an attempt shows its absence
		}
		return e.reason
	}
	for _, e := range equivalents {
		if m.chain == e.chain && strings.Contains(m.text, e.text) && e.in(profile) {
			return e.reason
		}
	}
	return ""
}

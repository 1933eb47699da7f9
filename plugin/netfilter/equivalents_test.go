package netfilter

import (
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/internal/testnet"
)

// equivalents are rules whose absence no packet can tell, and why. Each is listed for the profiles where that is so.
var equivalents = []struct {
	chain, text string // text is a part of the rule's
	in          func(testnet.Profile) bool
	reason      string
}{
	{"mangle-istio-inbound", "meta mark 1337 return", tproxyBut(),
		"such packets come by lo, where the rule for what is not marked 1338 lets them pass as well"},
	{"mangle-istio-output", "meta skuid ", tproxyBut(), "nat redirects the user's packets to the same listener"},
	{"nat-istio-output", "jump nat-istio-in-redirect", tproxyBut("tproxy-no-inbound"),
		"mark 1338 brings the user's packets to the same listener"},
	{"nat-istio-in-redirect", "redirect to", tproxyBut("tproxy-no-inbound"),
		"likewise: in this mode only that rule jumps there"},
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
	{"raw-istio-output-dns", "", called("dns-exclude-ports", "tproxy-dns-exclude-ports"),
		"no query is captured: there is nothing to keep apart"},
}

func called(names ...string) func(testnet.Profile) bool {
	return func(p testnet.Profile) bool { return slices.Contains(names, p.Name) }
}

func tproxyBut(names ...string) func(testnet.Profile) bool {
	return func(p testnet.Profile) bool { return p.Settings["mode"] == "TPROXY" && !slices.Contains(names, p.Name) }
}

// equivalent returns why nothing changes without the mutant's rule, "" if something must.
func equivalent(profile testnet.Profile, m mutant) string {
	for _, e := range equivalents {
		if m.chain == e.chain && strings.Contains(m.text, e.text) && e.in(profile) {
			return e.reason
		}
	}
	return ""
}

package netfilter

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// translated are connections that the settings let pass, and that somebody else in the pod then sends elsewhere by
// DNAT: to a destination that would have been captured. Others are kept from connection tracking. In a rule for nft $nf
// is the name of the family, and $ with a place is its address.
var translated = []struct {
	name     string
	settings map[string]any
	hook     string // the hook of a nat chain with the rule; raw: both hooks before connection tracking
	rule     string
	flow     testnet.Flow
	lands    testnet.Landing
}{
	{"an excluded port, untracked", map[string]any{"excludeInboundPorts": "8080"}, "raw",
		untracked, testnet.Flow{From: testnet.FromPeer, Proto: testnet.TCP, To: testnet.Pod, Port: 8080},
		testnet.AtApp},
	{"an excluded outbound port, untracked", map[string]any{"excludeOutboundPorts": "8080"}, "raw",
		untracked, testnet.Flow{From: testnet.FromApp, Proto: testnet.TCP, To: testnet.Peer, Port: 8080},
		testnet.AtPeer},
	{"an excluded destination, untracked", map[string]any{"excludeOutboundIPRanges": "10.88.0.2/32,fd88::2/128"},
		"raw", untracked,
		testnet.Flow{From: testnet.FromApp, Proto: testnet.TCP, To: testnet.Peer, Port: 8080}, testnet.AtPeer},
	{"an excluded port to a machine", map[string]any{"excludeInboundPorts": "8888"}, "prerouting",
		"tcp dport 8888 dnat to $vm:80", toPublished, testnet.AtVM},
	{"a port of an excluded range to a machine", map[string]any{"excludeInboundPorts": "25,8880-8890"}, "prerouting",
		"tcp dport 8888 dnat to $vm:80", toPublished, testnet.AtVM},
	{"a port that is not included to a machine", map[string]any{"includeInboundPorts": "80,8080"}, "prerouting",
		"tcp dport 8888 dnat to $vm:80", toPublished, testnet.AtVM},
	{"an excluded port to a machine, TPROXY",
		map[string]any{"mode": "TPROXY", "excludeInboundPorts": "8888", "excludeInterfaces": "net1"}, "prerouting",
		"tcp dport 8888 dnat to $vm:80", toPublished, testnet.AtVM},
	{"an excluded port to another of the pod's", map[string]any{"excludeInboundPorts": "8888"}, "prerouting",
		"tcp dport 8888 redirect to :8080", toPublished, testnet.AtApp},
	{"a port that is not included to another of the pod's", map[string]any{"includeInboundPorts": "80,8080"},
		"prerouting", "tcp dport 8888 redirect to :8080", toPublished, testnet.AtApp},
	{"an excluded port to another of the pod's, TPROXY",
		map[string]any{"mode": "TPROXY", "excludeInboundPorts": "8888"}, "prerouting",
		"tcp dport 8888 redirect to :8080", toPublished, testnet.AtApp},
	{"within the pod", map[string]any{}, "output", "tcp dport 8888 dnat to $vm:80",
		testnet.Flow{From: testnet.FromApp, Proto: testnet.TCP, To: testnet.Pod, Port: 8888}, testnet.AtVM},
	{"an excluded outbound port", map[string]any{"excludeOutboundPorts": "5432"}, "output",
		"tcp dport 5432 dnat to $peer:8080",
		testnet.Flow{From: testnet.FromApp, Proto: testnet.TCP, To: testnet.Outside, Port: 5432}, testnet.AtPeer},
	{"an excluded outbound port, TPROXY", map[string]any{"mode": "TPROXY", "excludeOutboundPorts": "5432"}, "output",
		"tcp dport 5432 dnat to $peer:8080",
		testnet.Flow{From: testnet.FromApp, Proto: testnet.TCP, To: testnet.Outside, Port: 5432}, testnet.AtPeer},
	{"an excluded outbound port, UDP", map[string]any{"dnsCapture": true, "excludeOutboundPorts": "5353"}, "output",
		"udp dport 5353 dnat to $peer:53",
		testnet.Flow{From: testnet.FromApp, Proto: testnet.UDP, To: testnet.Outside, Port: 5353}, testnet.AtPeer},
	// as with a credential proxy that a pod calls by the address of the metadata service
	{"an excluded destination to a port of the pod", map[string]any{
		"excludeOutboundIPRanges": "203.0.113.7/32,2001:db8:7::7/128"}, "output",
		"$nf daddr $outside tcp dport 80 redirect to :8080",
		testnet.Flow{From: testnet.FromApp, Proto: testnet.TCP, To: testnet.Outside, Port: 80}, testnet.AtApp},
	{"an excluded destination to another", map[string]any{"dnsCapture": true,
		"excludeOutboundIPRanges": "203.0.113.0/24,2001:db8:7::/48"}, "output",
		"$nf daddr $outside tcp dport 80 dnat to $peer:8080",
		testnet.Flow{From: testnet.FromApp, Proto: testnet.TCP, To: testnet.Outside, Port: 80}, testnet.AtPeer},
}

const untracked = "tcp dport 8080 notrack; tcp sport 8080 notrack"

var toPublished = testnet.Flow{From: testnet.FromPeer, Proto: testnet.TCP, To: testnet.Pod, Port: 8888}

// lets matches the comments of the guard's rules that let excluded traffic pass.
var lets = regexp.MustCompile("^excluded (inbound port|outbound port|destination)|whatever it was translated to$")

// TestTranslated checks that each connection reaches its new destination, and that each of the guard's rules that let
// excluded traffic pass is needed by one. Package trace predicts each of them, also without one of those rules.
func TestTranslated(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend Backend) {
		lab, n := newLab(t, testnet.Options{})
		for _, family := range lab.Families() {
			missed := map[string]bool{}
			for _, c := range translated {
				profile := testnet.Profile{Name: c.name, Settings: c.settings}
				rules := ruleSet(t, profile)
				if err := lab.Use(profile); err != nil {
					t.Fatal(err)
				}
				lands := func(rules redirect.RuleSet) testnet.Outcome {
					apply(t, n, backend, rules)
					if err := lab.Reset(); err != nil {
						t.Fatal(err)
					}
					return lab.Run(c.flow, family)
				}
				applied := apply(t, n, backend, rules)
				shell(t, lab, translation(redirect.Family(family), c.hook, c.rule))
				if got := lands(rules); got.Landed != c.lands {
					t.Errorf("%s: %s: %s", family, c.name, got)
				}
				foreign := foreignOf(t, redirect.Family(family), c.hook, c.rule)
				if got := foreignLanding(t, profile, rules, c.flow, family, foreign); got != c.lands {
					t.Errorf("%s: %s: trace says %s", family, c.name, got)
				}
				for _, m := range mutants(rules, redirect.Family(family), backend) {
					what := fmt.Sprintf("%s: %s", m.chain, m.why)
					if strings.HasPrefix(m.chain, "filter-istio-guard-") && lets.MatchString(m.why) && !missed[what] {
						missed[what] = lands(m.rules).Landed != c.lands
						walked := foreignLanding(t, profile, m.rules, c.flow, family, foreign) != c.lands
						if walked != missed[what] {
							t.Errorf("%s: %s without %s: the kernel misses it: %t, trace: %t", family, c.name, what, missed[what],
								walked)
						}
					}
				}
				shell(t, lab, "nft delete table "+redirect.Family(family).String()+" translation")
				if err := n.Remove(applied); err != nil {
					t.Fatal(err)
				}
			}
			for what, is := range missed {
				if !is {
					t.Errorf("%s: nothing misses %s", family, what)
				}
			}
			if want := 7; len(missed) < want {
				t.Errorf("%s: only %v", family, missed)
			}
		}
	})
}

// translation returns a script for the rule of somebody that runs after ours.
func translation(family redirect.Family, hook, rule string) string {
	words := []string{"$nf", family.String()}
	for _, place := range []testnet.Place{testnet.VM, testnet.Peer, testnet.Outside} {
		address := place.Addr(testnet.Family(family)).String()
		if family == redirect.IPv6 && !strings.Contains(rule, "daddr $"+string(place)) {
			address = "[" + address + "]"
		}
		words = append(words, "$"+string(place), address)
	}
	chain := "chain %[1]s { type nat hook %[1]s priority -90; %[2]s; }"
	if hook == "raw" {
		chain = `chain in { type filter hook prerouting priority -300; %[2]s; }
			chain out { type filter hook output priority -300; %[2]s; }`
	}
	chain = fmt.Sprintf(chain, hook, strings.NewReplacer(words...).Replace(rule))
	return fmt.Sprintf("nft -f - <<'END'\n table %s translation {\n%s\n}\nEND\n", family, chain)
}

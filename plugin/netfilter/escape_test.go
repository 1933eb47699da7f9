package netfilter

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// guarded are the profiles with which the attempts to get around the sidecar are made under the old rules, in
// testdata/before, and the attempts that had no effect even there. None includes packets from 127.0.0.6, which never
// leave a pod.
var guarded = map[string][]string{
	"default":                {"IPv4 escape-loopback"},
	"dns-exclude-interfaces": {"IPv4 escape-loopback"},
	// TPROXY's rules judge a SYN without connection tracking. In profile tproxy that covers the packets of a machine
	// behind the pod. In both it covers the SYN of a server that calls at the same time as the pod, and in IPv6 that of
	// a server that calls.
	"tproxy": {"IPv4 escape-vm", "IPv6 escape-vm", "IPv6 escape-inbound", "IPv4 escape-loopback",
		"IPv4 escape-simultaneous", "IPv6 escape-simultaneous"},
	"tproxy-reroute": {"IPv6 escape-inbound", "IPv4 escape-loopback", "IPv4 escape-simultaneous",
		"IPv6 escape-simultaneous"},
}

// TestEscapesWereReal makes every attempt under the rules without the guard. Each must succeed there, or it would prove
// nothing. TestTraffic checks that none succeeds under the current rules.
func TestEscapesWereReal(t *testing.T) {
	tried := map[string]bool{}
	for name, harmless := range guarded {
		for _, backend := range backends {
			lab, n := newLab(t, testnet.Options{})
			profile, _ := testnet.ProfileNamed(name)
			if err := lab.Use(profile); err != nil {
				t.Fatal(err)
			}
			apply(t, n, backend, ruleSet(t, profile)) // for addresses and routes
			applyBefore(t, lab, backend, name)
			var attempts []testnet.Flow
			for _, flow := range testnet.Flows(profile) {
				if flow.Escapes() {
					attempts = append(attempts, flow)
				}
			}
			through := getThrough(lab, attempts)
			for _, flow := range attempts {
				for _, family := range lab.Families() {
					what := fmt.Sprintf("%s %s", family, flow.Name)
					if !flow.In(family) || testnet.Expected(profile, flow, family).Landed != testnet.Kept {
						continue
					}
					tried[string(flow.Kind)] = tried[string(flow.Kind)] || through[what]
					if through[what] == (flow.Harmless() || slices.Contains(harmless, what)) {
						t.Errorf("%s, %s: %s gets through: %t", backend, name, what, through[what])
					}
				}
			}
		}
	}
	for _, kind := range testnet.EscapeKinds() {
		through, made := tried[string(kind)]
		if harmless := (testnet.Flow{Kind: kind}).Harmless(); !made || through == harmless {
			t.Errorf("%s is made: %t; gets through: %t, and is harmless: %t", kind, made, through, harmless)
		}
	}
}

// getThrough makes the attempts and repeats those that fail: a busy kernel may lose a packet, and some attempts need
// SYNs within some milliseconds.
func getThrough(lab *testnet.Lab, attempts []testnet.Flow) map[string]bool {
	through := map[string]bool{}
	for range 8 {
		var again []testnet.Flow
		for _, flow := range attempts {
			for _, family := range lab.Families() {
				what := fmt.Sprintf("%s %s", family, flow.Name)
				if flow.In(family) && !through[what] && !slices.Contains(again, flow) {
					again = append(again, flow)
				}
			}
		}
		for _, result := range lab.CheckFlows(again) {
			what := fmt.Sprintf("%s %s", result.Family, result.Flow.Name)
			through[what] = through[what] || result.Got.Landed != testnet.Failed
		}
	}
	return through
}

// applyBefore replaces the packet rules by the old ones.
func applyBefore(t *testing.T, lab *testnet.Lab, backend Backend, name string) {
	t.Helper()
	file := filepath.Join("testdata", "before", name)
	if backend == Nftables {
		shell(t, lab, "nft flush ruleset; nft -f "+file+".nft")
	} else {
		suffix := strings.TrimPrefix(string(backend), "iptables")
		for _, family := range redirect.Families {
			shell(t, lab, fmt.Sprintf(`export XTABLES_LOCKFILE=%s
				for table in raw mangle filter nat; do printf '*%%s\nCOMMIT\n' $table; done | %s%s-restore
				%[2]s%[3]s-restore <%[4]s-%[5]s.restore`, lab.Path, iptablesName(family), suffix, file, family))
		}
	}
	if rules := packetRules(t, lab); strings.Contains(strings.ToLower(rules), "guard") || !strings.Contains(
		strings.ToLower(strings.ReplaceAll(rules, "-", "_")), "istio_output") {
		t.Fatalf("not the rules of before: %s", rules)
	}
	if err := lab.Reset(); err != nil {
		t.Fatal(err)
	}
}

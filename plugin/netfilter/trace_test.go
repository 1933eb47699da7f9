package netfilter

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/istio-pod-network/controller/plugin/trace"
)

// TestTraceMissesNoRule sends real packets through the rules of every profile, and predicts them with package trace,
// from the same rules, and from the rules without each one in turn. The former must agree with the kernel. Each of the
// latter must be wrong about a packet of some profile. So package trace uses every rule.
func TestTraceMissesNoRule(t *testing.T) {
	lab, n := newLab(t, testnet.Options{})
	missed := map[string]bool{} // by family and rule
	for _, profile := range slices.Concat(testnet.Profiles, testnet.FamilyProfiles) {
		rules := ruleSet(t, profile)
		if err := lab.Use(profile); err != nil {
			t.Fatal(err)
		}
		apply(t, n, Nftables, rules)
		if err := lab.Reset(); err != nil {
			t.Fatal(err)
		}
		predictor := predictorOf(t, profile)
		results := lab.TryFlows(testnet.Flows(profile))
		for _, result := range results {
			if want, agrees := predictor.Agrees(result); !agrees {
				t.Errorf("%s: %s; trace says %s", profile.Name, result, want)
			}
		}
		for _, family := range lab.Families() {
			for _, m := range mutants(rules, redirect.Family(family), IptablesNFT) {
				key := family.String() + " " + m.String()
				if m.inert != "" || heldByTranslated(m) || missed[key] {
					continue
				}
				without := predictor
				without.Rules.RuleSet = m.rules
				missed[key] = slices.ContainsFunc(results, func(r testnet.Result) bool {
					_, agrees := without.Agrees(r)
					return r.Family == family && !agrees
				}) || equivalent(profile, m, redirect.Family(family)) != ""
			}
		}
	}
	for rule, is := range missed {
		if !is {
			t.Errorf("nothing that trace says is wrong without %s", rule)
		}
	}
	t.Logf("%d rules left out", len(missed))
}

// foreignOf returns the rules of translation in the form of package trace.
func foreignOf(t *testing.T, family redirect.Family, hook, rule string) (all []trace.Foreign) {
	t.Helper()
	if hook == "raw" {
		match := []redirect.Match{redirect.TCP, redirect.DestPorts{{First: 8080, Last: 8080}}}
		for _, h := range []redirect.Hook{redirect.Prerouting, redirect.Output} {
			all = append(all, trace.Foreign{Name: "translation", Kind: redirect.Raw, Hook: h, Family: family, Priority: -300,
				Rules: []trace.Rule{{Matches: match, Target: trace.Untrack{}}}})
		}
		return all
	}
	var matches []redirect.Match
	if rest, found := strings.CutPrefix(rule, "$nf daddr $outside "); found {
		to := testnet.Outside.Addr(testnet.Family(family))
		matches, rule = append(matches, redirect.To{netip.PrefixFrom(to, to.BitLen())}), rest
	}
	var proto, action, to string
	var port uint16
	if _, err := fmt.Sscanf(rule, "%s dport %d %s to %s", &proto, &port, &action, &to); err != nil {
		t.Fatalf("%q: %v", rule, err)
	}
	place, number, _ := strings.Cut(to, ":")
	translated, err := redirect.ParsePort(number)
	if err != nil {
		t.Fatal(err)
	}
	matches = append(matches, map[string]redirect.Proto{"tcp": redirect.TCP, "udp": redirect.UDP}[proto],
		redirect.DestPorts{{First: port, Last: port}})
	target := any(redirect.RedirectTo(translated))
	if action == "dnat" {
		address := testnet.Place(strings.TrimPrefix(place, "$")).Addr(testnet.Family(family))
		target = trace.TranslateTo(netip.AddrPortFrom(address, uint16(translated)))
	}
	return []trace.Foreign{{Name: "translation", Kind: redirect.NAT, Hook: redirect.Hook(hook), Family: family,
		Priority: -90, Rules: []trace.Rule{{Matches: matches, Target: target}}}}
}

// foreignLanding returns where package trace predicts a flow to land, with chains of others.
func foreignLanding(t *testing.T, profile testnet.Profile, rules redirect.RuleSet, f testnet.Flow,
	family testnet.Family, foreign []trace.Foreign) testnet.Landing {
	t.Helper()
	predictor := predictorOf(t, profile)
	predictor.Rules.RuleSet, predictor.Rules.Foreign = rules, foreign
	way := predictor.Way(f, family)
	switch {
	case way.Landed == trace.Outside && way.Link == "net1":
		return testnet.AtVM
	case way.Landed == trace.Outside:
		return testnet.AtPeer
	case way.Landed == trace.InPod:
		return testnet.AtApp
	case way.Landed == trace.Dropped:
		return testnet.Timeout
	}
	return testnet.Landing(way.Landed)
}

package netfilter

import (
	"slices"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// TestTraceMissesNoRule sends real packets through the rules of every profile, and has package trace predict them by
// the same rules, and by the rules without each one in turn: the former must agree, and of the latter each must be
// wrong about a packet of some profile. So there is no rule that package trace does not look at.
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

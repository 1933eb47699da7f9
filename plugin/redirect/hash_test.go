package redirect

import (
	"strings"
	"testing"
)

// The hash depends on rules, addresses, routes and how they are written. It does not depend on the comments of the
// rules.
func TestHash(t *testing.T) {
	seen := map[string]string{}
	for name, raw := range profiles {
		rules := spec(t, raw).RuleSet()
		text := rules.text(false)
		if other, same := seen[rules.Hash()]; same && other != text {
			t.Errorf("%s: two rule sets have the hash %s", name, rules.Hash())
		}
		seen[rules.Hash()] = text
		if strings.Contains(text, " comment ") {
			t.Errorf("%s: comments are part of the hash: %s", name, text)
		}
	}
	rules := func() RuleSet { return spec(t, profiles["tproxy-dns"]).RuleSet() }
	hash := rules().Hash()
	for name, change := range map[string]func(*RuleSet){
		"a rule less":       func(r *RuleSet) { c := &r.Tables[0].Chains[0]; c.Rules = c.Rules[1:] },
		"another match":     func(r *RuleSet) { r.Tables[0].Chains[0].Rules[0].Matches = []Match{Mark(7)} },
		"another target":    func(r *RuleSet) { r.Tables[0].Chains[0].Rules[0].Target = SetZone(77) },
		"a table less":      func(r *RuleSet) { r.Tables = r.Tables[1:] },
		"an address less":   func(r *RuleSet) { r.Addresses = r.Addresses[1:] },
		"a route less":      func(r *RuleSet) { r.Routes = r.Routes[1:] },
		"another hook":      func(r *RuleSet) { c := r.Tables[0].Chains; c[len(c)-1].Hook = Regular },
		"another chain":     func(r *RuleSet) { r.Tables[0].Chains[0].Name = "X" },
		"of another family": func(r *RuleSet) { r.Tables[0].Family = 10 - r.Tables[0].Family },
	} {
		changed := rules()
		if change(&changed); changed.Hash() == hash {
			t.Errorf("%s: the same hash", name)
		}
	}
	explained := rules()
	explained.Tables[0].Chains[0].Rules[0].Why = "in other words"
	if explained.Hash() != hash {
		t.Error("other words have another hash")
	}
	if rules().hash(Rendering+1) == hash {
		t.Error("another way of writing has the same hash")
	}
}

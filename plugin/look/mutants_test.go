package look

import "github.com/istio-pod-network/controller/plugin/redirect"

// mutant is a rule set of which a chain is without rules.
type mutant struct {
	chain string
	rules redirect.RuleSet
}

func (p *pod) mutants() (all []mutant) {
	for i, t := range p.rules.Tables {
		for j, c := range t.Chains {
			rules := p.rules.RuleSet
			rules.Tables = append([]redirect.Table{}, rules.Tables...)
			rules.Tables[i].Chains = append([]redirect.Chain{}, t.Chains...)
			rules.Tables[i].Chains[j].Rules = nil
			all = append(all, mutant{c.Name, rules})
		}
	}
	return all
}

package netfilter

import (
	"fmt"

	"github.com/istio-pod-network/controller/plugin/redirect"
)

// compare lists our chains and compares them with what the same tool makes of the same rules in a namespace of their
// own: how a version of iptables words a rule need not be known.
func (t *tool) compare(rules redirect.RuleSet, skipped []Skipped) ([]string, error) {
	var differences []string
	for _, family := range redirect.Families {
		if skips(skipped, family) {
			continue
		}
		if t.restore[family] == "" {
			return nil, &unusableError{t.backend, fmt.Errorf("%s-restore was there at ADD and is not now", iptablesName(family))}
		}
		got, err := t.list(family)
		if err != nil {
			return nil, err
		}
		want, err := t.expected(family, rules)
		if err != nil {
			return nil, fmt.Errorf("writing the expected rules to a scratch network namespace: %w", err)
		}
		differences = append(differences, diff(want.listing(family), got.listing(family), want.texts(family))...)
	}
	return differences, nil
}

// expected writes the rules of one family to a scratch namespace and lists them.
func (t *tool) expected(family redirect.Family, rules redirect.RuleSet) (want held, err error) {
	scratch := *t
	scratch.nsenter = nil // the scratch namespace is owned by the caller's user namespace
	err = inScratch(func() error {
		if err := scratch.load(family, restoreInput(family, rules, nil)); err != nil {
			return err
		}
		want, err = scratch.list(family)
		return err
	})
	return want, err
}

func (h held) listing(family redirect.Family) listing {
	out := listing{}
	for kind, chains := range h {
		for chain, lines := range chains {
			key := fmt.Sprintf("%s table %s chain %s", iptablesName(family), kind, chain)
			out[key] = append([]string{""}, lines...)
		}
	}
	return out
}

func (h held) texts(family redirect.Family) map[string][]string {
	texts := map[string][]string{}
	for key, lines := range h.listing(family) {
		texts[key] = lines[1:]
	}
	return texts
}

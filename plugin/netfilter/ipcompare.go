package netfilter

import (
	"fmt"
	"strings"

	"github.com/istio-pod-network/controller/plugin/redirect"
)

// compare compares our chains with what the same program lists after it has written the same rules to a scratch
// namespace. So the code need not know how a version of iptables prints a rule. It runs three programs per family.
func (t *tool) compare(rules redirect.RuleSet, skipped []Skipped) ([]string, error) {
	var differences []string
	for _, family := range redirect.Families {
		if skips(skipped, family) {
			if off, err := noIPv6(); err != nil {
				return nil, err
			} else if !off && hasFamily(rules, family) {
				differences = append(differences, "IPv6 is no longer disabled, and has no rules")
			}
			continue
		}
		if t.restore[family] == "" && !hasFamily(rules, family) {
			continue // the family is not captured, so its programs may be missing
		}
		got, err := t.view(family)
		if err != nil {
			return nil, err
		}
		want, err := t.expected(family, rules)
		if err != nil {
			return nil, notExpected(err)
		}
		differences = append(differences, outline(family, want, got)...)
		expected := want.listed.listing(family)
		differences = append(differences, diff(expected, got.listed.listing(family), expected)...)
	}
	before, err := beforeNAT(t.backend, rules)
	return append(differences, before...), err
}

// view is the tables of one family: as the program lists them and, for iptables-nft, as the kernel does.
type view struct {
	listed held
	kernel map[compatTable]*compatContent
}

// view asks the kernel before the program: that fails if there is more than a program should list.
func (t *tool) view(family redirect.Family) (v view, err error) {
	found, err := scan()
	if err != nil {
		return v, err
	}
	if t.backend == IptablesNFT {
		v.kernel = found.compat
	}
	v.listed, err = t.list(family)
	return v, err
}

// expected writes the rules of one family to a scratch namespace and lists them.
func (t *tool) expected(family redirect.Family, rules redirect.RuleSet) (want view, err error) {
	err = inScratch(func() error {
		scratch, err := t.fill(family, rules)
		if err != nil {
			return &unusableError{t.backend, err}
		}
		want, err = scratch.view(family)
		return err
	})
	return want, err
}

// fill writes the rules of one family to the calling thread's network namespace. That is empty, and the caller's user
// namespace owns it.
func (t *tool) fill(family redirect.Family, rules redirect.RuleSet) (tool, error) {
	scratch := *t
	scratch.nsenter = nil
	return scratch, scratch.load(family, restoreInput(family, rules, nil))
}

// outline handles tables that iptables-nft cannot list, or lists without a condition. The kernel still lists their
// chains and jumps, so it reduces both views to these, and returns a text that says so.
func outline(family redirect.Family, want, got view) []string {
	var problems []string
	for _, kind := range iptablesTables {
		expected, content := want.kernel[compatTable{family, kind}], got.kernel[compatTable{family, kind}]
		if content == nil || expected == nil && len(content.chains) == 0 {
			continue
		}
		table := fmt.Sprintf("%s table %s", iptablesName(family), kind)
		if content.dormant {
			problems = append(problems, table+" is dormant: its rules are not in force")
		}
		if got.listed[kind] != nil && !content.wider {
			continue
		}
		problems = append(problems, fmt.Sprintf("%s holds rules that %s cannot list (`nft list table %s %s` does): "+
			"only the names of its chains and the jumps to them could be compared", table, IptablesNFT, family, kind))
		want.listed[kind], got.listed[kind] = expected.outline(), content.outline()
	}
	return problems
}

// outline returns the chains and jumps in the syntax of iptables-save. Rules of others before a jump have a
// placeholder.
func (c *compatContent) outline() map[string][]string {
	chains := map[string][]string{}
	if c == nil {
		return chains
	}
	for _, name := range c.chains {
		chains[name] = nil
	}
	for _, jump := range c.jumps {
		for !strings.HasPrefix(jump.from, istioPrefix) && jump.from != builtinOf[redirect.Forward] &&
			len(chains[jump.from]) < jump.after {
			chains[jump.from] = append(chains[jump.from], fmt.Sprintf("-A %s (not listed)", jump.from))
		}
		chains[jump.from] = append(chains[jump.from], jump.text())
	}
	return chains
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

package netfilter

import (
	"fmt"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/plugin/netfilter/netlink"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

// CheckOutline is Check for rules that another release has written for the same settings. rules are those of this
// release, or have no chains if it cannot read the settings. It checks only what every release writes: the tables that
// redirect traffic, the jumps from the hooks to their rules, and that something jumps to each of our chains. It also
// checks the addresses and routes in applied.Created that this release needs, too. Without applied.Backend it only
// checks that something of ours is there. IsDrift holds for the error if something is missing.
func (n *NetNS) CheckOutline(applied Applied, rules redirect.RuleSet) error {
	rules, _ = supported(rules)
	var problems []string
	err := n.Within(func() error {
		found, err := n.scanFor(applied, rules)
		if err != nil {
			return err
		}
		if applied.Backend == "" && len(found.ours) == 0 {
			problems = []string{"none are there"}
		} else if applied.Backend != "" {
			problems = found.missing(applied, rules)
		}
		parts, err := missingParts(rules, func(p part) bool { return !slices.Contains(applied.Created, p.String()) })
		problems = append(problems, parts...)
		return err
	})
	if err == nil && len(problems) > 0 {
		err = &driftError{problems}
	}
	return err
}

// scanFor scans what a backend has written. It describes the tables of every backend like those of iptables-nft. For
// iptables-legacy it runs one program per family.
func (n *NetNS) scanFor(applied Applied, rules redirect.RuleSet) (found state, err error) {
	switch applied.Backend {
	case "":
		return scan()
	case Nftables:
		return scanOwn()
	case IptablesNFT:
		return scanNFT()
	}
	if _, err = scan(); err != nil { // fails if there is more than a program should list
		return found, err
	}
	found.compat = map[compatTable]*compatContent{}
	tool, err := n.findTool(applied.Backend)
	for _, family := range redirect.Families {
		if err == nil && hasFamily(rules, family) && !skips(applied.Skipped, family) {
			err = found.addListed(tool, family)
		}
	}
	return found, err
}

func (s *state) addListed(t *tool, family redirect.Family) error {
	tables, err := t.list(family)
	for kind, chains := range tables {
		c := &compatContent{}
		s.compat[compatTable{family, kind}] = c
		for name, rules := range chains {
			if strings.HasPrefix(name, istioPrefix) {
				c.chains = append(c.chains, name)
			}
			for _, rule := range rules {
				if words := strings.Fields(rule); leadsToOurs(words) {
					c.jumps = append(c.jumps, compatJump{from: name, to: words[len(words)-1]})
				}
			}
		}
	}
	return err
}

// scanOwn scans our tables of backend Nftables. It describes them as one table for each kind: the kind is the start of
// a chain's name. A base chain is described as a jump from the built-in chain of its hook.
func scanOwn() (found state, err error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return found, err
	}
	defer conn.Close()
	found.compat = map[compatTable]*compatContent{}
	var dormant []redirect.Family
	for _, kind := range []uint16{unix.NFT_MSG_GETTABLE, unix.NFT_MSG_GETCHAIN, unix.NFT_MSG_GETRULE} {
		objects, err := dumpNFT(conn, kind, unix.AF_UNSPEC, nil)
		if err != nil {
			return found, err
		}
		for _, o := range objects {
			family := kernelFamily(o.family)
			switch {
			case family == 0 || o.text(unix.NFTA_RULE_TABLE) != redirect.TableName: // attribute 1 of all three
			case kind != unix.NFT_MSG_GETTABLE:
				found.addOwn(o, kind == unix.NFT_MSG_GETRULE, slices.Contains(dormant, family))
			case isDormant(o):
				dormant = append(dormant, family)
			}
		}
	}
	return found, nil
}

// addOwn adds a chain or a rule of our table.
func (s *state) addOwn(o object, isRule, dormant bool) {
	name := o.text(unix.NFTA_CHAIN_NAME)
	if isRule {
		name = o.text(unix.NFTA_RULE_CHAIN)
	}
	kind, _, _ := strings.Cut(name, "-")
	table := compatTable{kernelFamily(o.family), redirect.Kind(kind)}
	c := s.compat[table]
	if c == nil {
		c = &compatContent{chains: []string{markerChain}, dormant: dormant}
		s.compat[table] = c
	}
	if isRule {
		_ = netlink.Each(o.attr(unix.NFTA_RULE_EXPRESSIONS), func(_ uint16, expression []byte) {
			if _, to := readExpression(expression); to != "" {
				c.jumps = append(c.jumps, compatJump{from: name, to: to})
			}
		})
		return
	}
	c.chains = append(c.chains, name)
	hook := o.attr(unix.NFTA_CHAIN_HOOK)
	if number := (object{attrs: hook}).number(unix.NFTA_HOOK_HOOKNUM); len(hook) > 0 && o.number(chainUse) > 0 {
		c.jumps = append(c.jumps, compatJump{from: compatBuiltins[number], to: name}) // in the kernel's numbering
	}
}

// missing describes what every release writes for the settings and is not there.
func (s state) missing(applied Applied, rules redirect.RuleSet) (names []string) {
	for _, t := range rules.Tables {
		if t.Kind != redirect.NAT && t.Kind != redirect.Mangle || skips(applied.Skipped, t.Family) {
			continue
		}
		table := fmt.Sprintf("%s rules of %s", t.Kind, t.Family)
		c := s.compat[compatTable{t.Family, t.Kind}]
		if !c.marked() {
			names = append(names, "missing "+table)
			continue
		}
		for _, chain := range t.Chains {
			if hook := builtinOf[chain.Hook]; hook != "" && !c.leads(hook) {
				names = append(names, hook+" leads to no "+table)
			}
		}
	}
	for table, c := range s.compat {
		if !c.marked() {
			continue
		}
		if c.dormant {
			names = append(names, fmt.Sprintf("%s rules of %s are dormant", table.kind, table.family))
		}
		led := map[string]bool{}
		for _, jump := range c.jumps {
			led[jump.to] = true
		}
		for _, name := range c.chains {
			if name != markerChain && !led[name] {
				names = append(names, fmt.Sprintf("nothing leads to %s chain %s of %s", table.kind, name, table.family))
			}
		}
	}
	slices.Sort(names)
	return names
}

// marked reports whether the table is ours.
func (c *compatContent) marked() bool { return c != nil && slices.Contains(c.chains, markerChain) }

// leads reports whether a rule of the chain jumps to another one.
func (c *compatContent) leads(from string) bool {
	return slices.ContainsFunc(c.jumps, func(j compatJump) bool { return from == j.from })
}

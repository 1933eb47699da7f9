package redirect

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/golden"
)

// problems returns what is wrong with a rule set for any settings: what a backend or the kernel would reject, and what
// must never result from settings.
func problems(set RuleSet) []string {
	var found []string
	last := -1
	for _, t := range set.Tables {
		where := fmt.Sprintf("%s %s", t.Family, t.Kind)
		// The order of the tables is the order of writing: IPv6 first, raw before mangle before filter before nat.
		place := 4*slices.Index(Families, t.Family) + slices.Index([]Kind{Raw, Mangle, Filter, NAT}, t.Kind)
		if place <= last || len(t.Chains) == 0 {
			found = append(found, where+": out of order, twice or empty")
		}
		last = place
		for _, problem := range append(chainProblems(t), ruleProblems(t)...) {
			found = append(found, where+" "+problem)
		}
	}
	return found
}

// chainProblems checks the jumps between the chains of a table.
func chainProblems(t Table) (found []string) {
	regular, jumped, names := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, c := range t.Chains {
		if names[c.Name] || len(c.Rules) == 0 {
			found = append(found, c.Name+": twice or empty")
		}
		names[c.Name] = true
		for _, r := range c.Rules {
			if target, ok := r.Target.(Jump); ok {
				jumped[string(target)] = true
				if !regular[string(target)] {
					found = append(found, fmt.Sprintf("%s: jumps to %s, which is not a regular chain defined before", c.Name,
						target))
				}
			}
		}
		if c.Hook == Regular {
			regular[c.Name] = true
		}
	}
	for name := range regular {
		if !jumped[name] {
			found = append(found, name+": no rule jumps to it")
		}
	}
	return found
}

func ruleProblems(t Table) (found []string) {
	for _, c := range t.Chains {
		for i, r := range c.Rules {
			say := func(problem string) { found = append(found, fmt.Sprintf("%s rule %d: %s", c.Name, i, problem)) }
			// An nftables rule can have a comment of 128 bytes with the terminating zero (NFTNL_UDATA_COMMENT_MAXLEN,
			// libnftnl).
			if r.Why == "" || len(r.Why) > 127 || strings.ContainsAny(r.Why, "\"\\\n") {
				say("unusable comment " + r.Why)
			}
			proto := false
			for _, m := range r.Matches {
				if problem := matchProblem(t, c, m, proto); problem != "" {
					say(fmt.Sprintf("%T %v: %s", m, m, problem))
				}
				_, isProto := m.(Proto)
				proto = proto || isProto
			}
			if problem := targetProblem(t, c, r.Target, proto); problem != "" {
				say(fmt.Sprintf("%T %v: %s", r.Target, r.Target, problem))
			}
		}
	}
	return found
}

// matchProblem checks one match. proto says that the rule matches a transport protocol before it.
func matchProblem(t Table, c Chain, match Match, proto bool) string {
	prefixes, ports := []netip.Prefix(nil), singles([]uint16{1})
	switch m := match.(type) {
	case From:
		prefixes = m
	case To:
		prefixes = m
	case NotTo:
		prefixes = []netip.Prefix{netip.Prefix(m)}
	case DestPorts:
		ports = m
	case NotDestPorts:
		if ports = singles(m); len(m) > 15 {
			return "more ports than iptables can hold"
		}
	case SocketUID:
		if m == 0 {
			return "root is never exempt"
		}
	case SocketGID:
		if m == 0 {
			return "gid 0 stands for no group"
		}
	case SocketGroups:
		if len(m) == 0 || !slices.IsSorted(m) {
			return "no groups, or not sorted"
		}
	case InInterface:
		if len(m) == 0 || c.Hook == Output {
			return "no packet there has come in by it"
		}
	case OutInterface:
		if len(m) == 0 || c.Hook == Prerouting {
			return "not known before routing"
		}
	}
	switch match.(type) {
	case From, To, NotTo:
		wrong := func(p netip.Prefix) bool { return p.Addr().Is4() != (t.Family == IPv4) || p != p.Masked() }
		if len(prefixes) == 0 || slices.ContainsFunc(prefixes, wrong) {
			return "not prefixes of the family"
		}
	case SourcePort, DestPorts, NotDestPorts:
		if !proto {
			return "no port without a protocol"
		}
		return portsProblem(ports)
	case Opening:
		if !proto {
			return "no flags without a protocol"
		}
	case SocketUID, SocketGID, SocketGroups:
		if !slices.Equal(hooksOf(t, c), []Hook{Output}) {
			return "only packets on their way out have a socket"
		}
	}
	return ""
}

// hooksOf returns the hooks from which a chain gets its packets.
func hooksOf(t Table, c Chain) (hooks []Hook) {
	if c.Hook != Regular {
		return []Hook{c.Hook}
	}
	for _, from := range t.Chains {
		if jumpsTo(c.Name, from) {
			hooks = append(hooks, hooksOf(t, from)...)
		}
	}
	return hooks
}

// portsProblem checks the canonical form of port lists.
func portsProblem(ports []PortRange) string {
	for i, r := range ports {
		if r.Last < r.First || i > 0 && r.First <= ports[i-1].Last {
			return "not sorted, or not disjoint"
		}
	}
	if len(ports) == 0 || !slices.Equal(ports, normalized(ports)) {
		return "empty, or in another form"
	}
	return ""
}

// targetProblem checks that a target is in a table and hook that the kernel allows.
func targetProblem(t Table, c Chain, target Target, proto bool) string {
	switch v := target.(type) {
	case RedirectTo:
		if t.Kind != NAT || !proto || v == 0 {
			return "nat only, of a protocol, to a port"
		}
	case TProxyTo:
		if t.Kind != Mangle || !proto || c.Hook == Output || v.Port == 0 || v.Mark == 0 {
			return "mangle only, inbound, of a protocol, to a port"
		}
	case SetMark, SaveMark, RestoreMark, Accept:
		if t.Kind != Mangle {
			return "mangle only"
		}
	case Drop:
		if t.Kind != Mangle && t.Kind != Filter {
			return "mangle and filter only"
		}
	case SetZone:
		if t.Kind != Raw {
			return "raw only: later the connection has its zone"
		}
	}
	return ""
}

func TestStructure(t *testing.T) {
	for name, raw := range profiles {
		for _, problem := range problems(spec(t, raw).RuleSet()) {
			t.Errorf("%s: %s", name, problem)
		}
	}
}

// The checks find problems in rule sets that have some.
func TestStructureFindsProblems(t *testing.T) {
	breakage := map[string]func(*RuleSet){
		"out of order":            func(s *RuleSet) { slices.Reverse(s.Tables) },
		"defined before":          func(s *RuleSet) { slices.Reverse(s.Tables[0].Chains) },
		"no rule jumps to it":     func(s *RuleSet) { s.Tables[0].Chains[1].Name = "OTHER" },
		"twice or empty":          func(s *RuleSet) { s.Tables[0].Chains[1].Rules = nil },
		"prefixes of the fam":     func(s *RuleSet) { s.Tables[0].Family, s.Tables[1].Family = IPv4, IPv6 },
		"root is never exempt":    func(s *RuleSet) { s.Tables[0].Chains[3].Rules[1].Matches[0] = SocketUID(0) },
		"port without a protocol": func(s *RuleSet) { s.Tables[0].Chains[2].Rules[0].Matches = []Match{DestPorts{{1, 1}}} },
		"unusable comment":        func(s *RuleSet) { s.Tables[0].Chains[2].Rules[0].Why = "" },
		"nat only":                func(s *RuleSet) { s.Tables[0].Chains[0].Rules[0].Matches = nil },
		"mangle only":             func(s *RuleSet) { s.Tables[0].Chains[0].Rules[0].Target = SetMark(1) },
		"on their way out have":   func(s *RuleSet) { s.Tables[0].Chains[2].Rules[0].Matches = []Match{SocketGID(1)} },
	}
	for want, change := range breakage {
		set := DefaultSpec().RuleSet()
		set.Tables = slices.DeleteFunc(set.Tables, func(t Table) bool { return t.Kind != NAT })
		change(&set)
		if got := strings.Join(problems(set), "; "); !strings.Contains(got, want) {
			t.Errorf("%q is not found: %q", want, got)
		}
	}
}

// Both families are always written, and differ only in their addresses.
func TestFamiliesAreTwins(t *testing.T) {
	toIPv6 := strings.NewReplacer("127.0.0.1/32", "::1/128", "127.0.0.6/32", "::6/128", "ip daddr", "ip6 daddr",
		"ip saddr", "ip6 saddr",
		"table ip ", "table ip6 ")
	twins := 0
	for name, raw := range profiles {
		s := spec(t, raw)
		v6, v4, _ := strings.Cut(s.RuleSet().String(), "table ip istio-pod-network {\n")
		_, v6, both := strings.Cut(v6, "table ip6 istio-pod-network {\n")
		if !both || v4 == "" {
			if s.Mode != ModeNone {
				t.Errorf("%s: a family is missing", name)
			}
			continue
		}
		if s.IncludeOutboundIPRanges.list == nil && s.ExcludeOutboundIPRanges.list == nil {
			twins++
			if got := toIPv6.Replace(v4); got != v6 {
				t.Errorf("%s: %s", name, golden.Difference(got, v6))
			}
		}
		if set := s.RuleSet(); len(set.Addresses) != 1 || len(set.Routes) != map[Mode]int{ModeTProxy: 2}[s.Mode] {
			t.Errorf("%s: addresses %v, routes %v", name, set.Addresses, set.Routes)
		}
	}
	if twins < 20 {
		t.Errorf("only %d profiles compared", twins)
	}
}

// Every match and every target is in some golden file.
func TestGoldensShowEverything(t *testing.T) {
	matches, targets := map[string]bool{}, map[string]bool{}
	for _, raw := range profiles {
		for _, table := range spec(t, raw).RuleSet().Tables {
			for _, c := range table.Chains {
				for _, r := range c.Rules {
					targets[reflect.TypeOf(r.Target).Name()] = true
					for _, m := range r.Matches {
						matches[reflect.TypeOf(m).Name()] = true
					}
				}
			}
		}
	}
	if got, want := sortedKeys(matches), receivers(t, "ruleset.go", "isMatch"); !slices.Equal(got, want) {
		t.Errorf("matches %q of %q", got, want)
	}
	if got, want := sortedKeys(targets), receivers(t, "ruleset.go", "isTarget"); !slices.Equal(got, want) {
		t.Errorf("targets %q of %q", got, want)
	}
}

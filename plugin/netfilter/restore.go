package netfilter

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/plugin/redirect"
)

// builtinOf is the built-in iptables chain of a hook.
var builtinOf = map[redirect.Hook]string{redirect.Prerouting: "PREROUTING", redirect.Output: "OUTPUT",
	redirect.Input: "INPUT", redirect.Forward: "FORWARD"}

// restoreInput returns the input of iptables-restore --noflush for one family: it deletes what held has of ours, and
// adds the rule set. iptables-restore commits table by table. So the jumps from the built-in chains come last in a
// table, and nat, which alone redirects traffic, is the last table.
func restoreInput(family redirect.Family, rules redirect.RuleSet, held held) string {
	var out strings.Builder
	for _, kind := range iptablesTables {
		table := tableOf(rules, family, kind)
		if old := held[kind]; len(table.Chains) > 0 || len(old) > 0 {
			writeTable(&out, kind, table, old)
		}
	}
	return out.String()
}

func tableOf(rules redirect.RuleSet, family redirect.Family, kind redirect.Kind) redirect.Table {
	for _, t := range rules.Tables {
		if t.Family == family && t.Kind == kind {
			return t
		}
	}
	return redirect.Table{Family: family, Kind: kind}
}

func writeTable(out *strings.Builder, kind redirect.Kind, table redirect.Table, old map[string][]string) {
	fmt.Fprintf(out, "*%s\n", kind)
	chains := declared(table, old)
	for _, chain := range chains {
		fmt.Fprintf(out, ":%s - [0:0]\n", chain) // creates the chain, or flushes it
	}
	for _, chain := range slices.Backward(slices.Sorted(maps.Keys(old))) {
		for _, line := range old[chain] {
			if !strings.HasPrefix(chain, istioPrefix) && leadsToOurs(strings.Fields(line)) {
				out.WriteString("-D" + strings.TrimPrefix(line, "-A") + "\n")
			}
		}
	}
	for _, c := range table.Chains {
		for _, r := range c.Rules {
			for _, single := range r.Iptables() {
				fmt.Fprintf(out, "-A %s %s\n", c.Name, single.IptablesText())
			}
		}
	}
	for _, c := range table.Chains {
		if c.Hook != redirect.Regular { // before all rules of others
			fmt.Fprintf(out, "-I %s -j %s\n", builtinOf[c.Hook], c.Name)
		}
	}
	for _, chain := range chains {
		if !slices.Contains(chainsOf(table), chain) {
			fmt.Fprintf(out, "-X %s\n", chain)
		}
	}
	out.WriteString("COMMIT\n")
}

// chainsOf returns the chains that a table needs, the marker first.
func chainsOf(table redirect.Table) []string {
	if len(table.Chains) == 0 {
		return nil
	}
	names := []string{markerChain}
	for _, c := range table.Chains {
		names = append(names, c.Name)
	}
	return names
}

// declared returns the chains that the table needs or has, without duplicates.
func declared(table redirect.Table, old map[string][]string) []string {
	names := chainsOf(table)
	for _, chain := range slices.Sorted(maps.Keys(old)) {
		if strings.HasPrefix(chain, istioPrefix) && !slices.Contains(names, chain) {
			names = append(names, chain)
		}
	}
	return names
}

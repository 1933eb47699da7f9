package netfilter

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/istio-pod-network/controller/plugin/redirect"
)

// builtinOf is the iptables chain of a hook.
var builtinOf = map[redirect.Hook]string{redirect.Prerouting: "PREROUTING", redirect.Output: "OUTPUT",
	redirect.Input: "INPUT", redirect.Forward: "FORWARD"}

// restoreInput writes the input of iptables-restore --noflush for one family: what is held of ours goes, the rule set
// comes. iptables-restore commits table by table, so a table's jumps from the built-in chains stand last in it, and
// nat, which alone diverts traffic, is the last table.
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
		fmt.Fprintf(out, ":%s - [0:0]\n", chain) // makes it, or flushes it
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
			for _, words := range ruleWords(r) {
				fmt.Fprintf(out, "-A %s %s\n", c.Name, words)
			}
		}
	}
	for _, c := range table.Chains {
		if c.Hook != redirect.Regular { // before whatever others have there
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

// chainsOf lists the chains that a table shall hold, the marker first.
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

// declared lists the chains that it shall hold and those that it holds, each once.
func declared(table redirect.Table, old map[string][]string) []string {
	names := chainsOf(table)
	for _, chain := range slices.Sorted(maps.Keys(old)) {
		if strings.HasPrefix(chain, istioPrefix) && !slices.Contains(names, chain) {
			names = append(names, chain)
		}
	}
	return names
}

// multiport is how many ports one multiport match can hold (XT_MULTI_PORTS); a range takes the places of two.
const multiport = 15

// ruleWords renders a rule; a list becomes as many rules as it takes.
func ruleWords(r redirect.Rule) []string {
	variants := []string{""}
	for _, part := range [][]string{
		each(r, matchInterface), each(r, matchAddress), each(r, matchProto), each(r, matchPorts), each(r, matchOther),
	} {
		variants = cross(variants, part)
	}
	for i := range variants {
		variants[i] = strings.TrimPrefix(variants[i]+" -j "+targetWords(r.Target), " ")
	}
	return variants
}

// cross appends every alternative to every variant; no alternatives leave the variants alone.
func cross(variants, alternatives []string) []string {
	if len(alternatives) == 0 {
		return variants
	}
	var out []string
	for _, v := range variants {
		for _, a := range alternatives {
			out = append(out, v+" "+a)
		}
	}
	return out
}

// each renders the matches of one group: alternatives of one match, crossed with those of the others.
func each(r redirect.Rule, render func(redirect.Match) []string) []string {
	var out []string
	for _, m := range r.Matches {
		if words := render(m); len(words) > 0 {
			if out == nil {
				out = words
				continue
			}
			out = cross(out, words)
		}
	}
	return out
}

func matchInterface(match redirect.Match) []string {
	switch m := match.(type) {
	case redirect.InInterface:
		return prefixed("-i ", m, interfaceWord)
	case redirect.OutInterface:
		return prefixed("-o ", m, interfaceWord)
	}
	return nil
}

// interfaceWord writes a prefix as iptables does.
func interfaceWord(name string) string {
	if prefix, isPrefix := redirect.InterfacePrefix(name); isPrefix {
		return prefix + "+"
	}
	return name
}

func matchAddress(match redirect.Match) []string {
	switch m := match.(type) {
	case redirect.From:
		return prefixed("-s ", m, netip.Prefix.String)
	case redirect.To:
		return prefixed("-d ", m, netip.Prefix.String)
	case redirect.NotTo:
		return []string{"! -d " + netip.Prefix(m).String()}
	}
	return nil
}

func matchProto(match redirect.Match) []string {
	if m, ok := match.(redirect.Proto); ok {
		return []string{"-p " + m.String()}
	}
	return nil
}

func matchPorts(match redirect.Match) []string {
	switch m := match.(type) {
	case redirect.SourcePort:
		return []string{"--sport " + strconv.Itoa(int(m))}
	case redirect.DestPorts:
		return destPorts(m)
	case redirect.NotDestPorts:
		return []string{portsWords("! ", prefixed("", m, func(p uint16) string { return strconv.Itoa(int(p)) }))}
	}
	return nil
}

// destPorts says in as many alternatives as it takes that the port is in one of the ranges.
func destPorts(ranges []redirect.PortRange) []string {
	var out, items []string
	places := 0
	for _, r := range ranges {
		need, text := 1, strconv.Itoa(int(r.First))
		if isRange(r) {
			need, text = 2, fmt.Sprintf("%d:%d", r.First, r.Last)
		}
		if places+need > multiport {
			out, items, places = append(out, portsWords("", items)), nil, 0
		}
		items, places = append(items, text), places+need
	}
	return append(out, portsWords("", items))
}

func portsWords(not string, items []string) string {
	if len(items) == 1 {
		return not + "--dport " + items[0]
	}
	return "-m multiport " + not + "--dports " + strings.Join(items, ",")
}

// Source of the options: net/netfilter/xt_conntrack.c, revision 3, which takes ranges of ports since Linux 2.6.39.
const conntrack, ctOriginal = "-m conntrack ", "--ctdir ORIGINAL"

func matchOther(match redirect.Match) []string {
	switch m := match.(type) {
	case redirect.Original:
		return []string{conntrack + ctOriginal}
	case redirect.OriginalDestPorts:
		return prefixed(conntrack+"--ctorigdstport ", m, func(r redirect.PortRange) string {
			return strings.ReplaceAll(r.String(), "-", ":") + " " + ctOriginal
		})
	case redirect.OriginalTo:
		return prefixed(conntrack+"--ctorigdst ", m, func(p netip.Prefix) string { return p.String() + " " + ctOriginal })
	case redirect.Opening:
		return []string{"--tcp-flags FIN,SYN,RST,ACK SYN"} // of -p tcp: net/netfilter/xt_tcpudp.c
	case redirect.SocketUID:
		return []string{"-m owner --uid-owner " + redirect.ID(m).String()}
	case redirect.SocketGID:
		return []string{"-m owner --gid-owner " + redirect.ID(m).String()}
	case redirect.SocketGroups:
		return prefixed("-m owner --gid-owner ", m, redirect.ID.String)
	case redirect.Mark:
		return []string{fmt.Sprintf("-m mark --mark %d", uint32(m))}
	case redirect.NotMark:
		return []string{fmt.Sprintf("-m mark ! --mark %d", uint32(m))}
	case redirect.ConnMark:
		return []string{fmt.Sprintf("-m connmark --mark %d", uint32(m))}
	case redirect.ConnState:
		return []string{conntrack + "--ctstate " + strings.ToUpper(string(m))}
	}
	return nil
}

func prefixed[E any](prefix string, list []E, text func(E) string) []string {
	out := make([]string, len(list))
	for i, e := range list {
		out[i] = prefix + text(e)
	}
	return out
}

func targetWords(target redirect.Target) string {
	switch v := target.(type) {
	case redirect.Return:
		return "RETURN"
	case redirect.Accept:
		return "ACCEPT"
	case redirect.Drop:
		return "DROP"
	case redirect.Jump:
		return string(v)
	case redirect.RedirectTo:
		return fmt.Sprintf("REDIRECT --to-ports %d", v)
	case redirect.TProxyTo:
		return fmt.Sprintf("TPROXY --on-port %d --tproxy-mark %d", v.Port, v.Mark)
	case redirect.SetMark:
		return fmt.Sprintf("MARK --set-mark %d", uint32(v))
	case redirect.SaveMark:
		return "CONNMARK --save-mark"
	case redirect.RestoreMark:
		return "CONNMARK --restore-mark"
	case redirect.SetZone:
		return fmt.Sprintf("CT --zone %d", uint16(v))
	}
	panic(fmt.Sprintf("netfilter: no iptables target for %T", target))
}

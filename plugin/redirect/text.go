package redirect

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// TableName is the name of our nftables table, in both families.
const TableName = "istio-pod-network"

// NFTName returns the name of a chain in our nftables table, which has the chains of all kinds. It is the kind and
// Istio's name in lower case with hyphens, such as nat-istio-output.
func NFTName(kind Kind, chain string) string {
	return string(kind) + "-" + strings.ReplaceAll(strings.ToLower(chain), "_", "-")
}

// Priority returns the priority of the kind's base chains in nftables. It is that of the iptables table, except for
// NAT. Source: include/uapi/linux/netfilter_ipv4.h, enum nf_ip_hook_priorities.
//
// Of two base chains with the same priority the newer one runs first, and of all nat chains only the first that
// translates a connection counts. So NAT comes before iptables' nat table and all others, at the lowest priority that
// the kernel allows nat chains, NF_IP_PRI_CONNTRACK + 1 (net/netfilter/nf_tables_api.c, nft_chain_parse_hook). This
// only orders the nat chains among themselves: the hook that runs them stays at -100 (net/netfilter/nf_nat_core.c,
// nf_nat_register_fn).
func (k Kind) Priority() int {
	switch k {
	case Raw:
		return -300
	case Mangle:
		return -150
	case Filter:
		return 0
	}
	return -199
}

// ChainType returns the nftables chain type. mangle's output chain has type route, so that a packet is routed again
// after its mark has changed.
func ChainType(kind Kind, hook Hook) string {
	switch {
	case kind == NAT:
		return "nat"
	case kind == Mangle && hook == Output:
		return "route"
	}
	return "filter"
}

// String returns the rule set in the syntax of nft(8), one table per family. Addresses and routes are comments. `nft
// list` shows the netlink backend's rules and those that nft makes of this text in the same words.
func (r RuleSet) String() string { return r.text(true) }

// text returns String's text, with or without the rules' comments.
func (r RuleSet) text(comments bool) string {
	var out strings.Builder
	for _, a := range r.Addresses {
		fmt.Fprintf(&out, "# address %s dev lo\n", a.Prefix)
	}
	for _, p := range r.Routes {
		_, _, everything := p.Family.addresses()
		fmt.Fprintf(&out, "# %s rule fwmark %d lookup %d, route local %s dev lo table %d\n", p.Family, p.Mark, p.Table,
			everything, p.Table)
	}
	for _, family := range Families {
		r.writeFamily(&out, family, comments)
	}
	return out.String()
}

func (r RuleSet) writeFamily(out *strings.Builder, family Family, comments bool) {
	open := false
	for _, t := range r.Tables {
		if t.Family != family {
			continue
		}
		if !open {
			fmt.Fprintf(out, "table %s %s {\n", family, TableName)
			open = true
		}
		for _, c := range t.Chains {
			writeChain(out, t, c, comments)
		}
	}
	if open {
		out.WriteString("}\n")
	}
}

func writeChain(out *strings.Builder, t Table, c Chain, comments bool) {
	fmt.Fprintf(out, "\tchain %s {\n", NFTName(t.Kind, c.Name))
	if c.Hook != Regular {
		fmt.Fprintf(out, "\t\ttype %s hook %s priority %d; policy accept;\n", ChainType(t.Kind, c.Hook), c.Hook,
			t.Kind.Priority())
	}
	for _, r := range c.Rules {
		for _, line := range r.Lines(t) {
			out.WriteString("\t\t" + line.Text)
			if comments {
				fmt.Fprintf(out, " comment %q", line.Why)
			}
			out.WriteByte('\n')
		}
	}
	out.WriteString("\t}\n")
}

// Line is one rule in the syntax of nft(8), and its comment.
type Line struct{ Text, Why string }

// Lines returns the nftables rules for the rule. TPROXY needs two, because nftables lets a packet continue if no socket
// listens.
func (r Rule) Lines(t Table) []Line {
	var words []string
	for _, m := range r.Matches {
		words = append(words, matchText(t.Family, m))
	}
	text := func(target string) string { return strings.Join(append(slices.Clone(words), target), " ") }
	lines := []Line{{text(targetText(t, r.Target)), r.Why}}
	if _, ok := r.Target.(TProxyTo); ok {
		lines = append(lines, Line{text("drop"), NoListener})
	}
	return lines
}

// NoListener is the comment of the rule after a TPROXY rule.
const NoListener = "the sidecar does not listen: drop, never pass"

const original = "ct direction original"

func matchText(family Family, match Match) string {
	switch m := match.(type) {
	case Proto:
		return "meta l4proto " + m.String()
	case InInterface:
		return "iifname " + quoted(m)
	case OutInterface:
		return "oifname " + quoted(m)
	case From:
		return family.String() + " saddr " + set(m, netip.Prefix.String)
	case To:
		return family.String() + " daddr " + set(m, netip.Prefix.String)
	case NotTo:
		return family.String() + " daddr != " + netip.Prefix(m).String()
	case SourcePort:
		return "th sport " + strconv.Itoa(int(m))
	case DestPorts:
		return "th dport " + set(m, PortRange.String)
	case Original:
		return original
	case OriginalDestPorts:
		return original + " ct original proto-dst " + set(m, PortRange.String)
	case OriginalTo:
		return original + " ct original " + family.String() + " daddr " + set(m, netip.Prefix.String)
	case NotDestPorts:
		return "th dport != " + set(m, portText)
	case Opening:
		return "tcp flags & (fin | syn | rst | ack) == syn"
	case SocketUID:
		return "meta skuid " + ID(m).String()
	case SocketGID:
		return "meta skgid " + ID(m).String()
	case SocketGroups:
		return "meta skgid " + set(m, ID.String)
	case Mark:
		return fmt.Sprintf("meta mark %d", uint32(m))
	case NotMark:
		return fmt.Sprintf("meta mark != %d", uint32(m))
	case ConnMark:
		return fmt.Sprintf("ct mark %d", uint32(m))
	case ConnState:
		return "ct state " + string(m)
	}
	panic(fmt.Sprintf("redirect: no text for %T", match))
}

func targetText(t Table, target Target) string {
	switch v := target.(type) {
	case Return:
		return "return"
	case Accept:
		return "accept"
	case Drop:
		return "drop"
	case Jump:
		return "jump " + NFTName(t.Kind, string(v))
	case RedirectTo:
		return fmt.Sprintf("redirect to :%d", v)
	case TProxyTo:
		return fmt.Sprintf("tproxy to :%d meta mark set %d accept", v.Port, v.Mark)
	case SetMark:
		return fmt.Sprintf("meta mark set %d", uint32(v))
	case SaveMark:
		return "ct mark set meta mark"
	case RestoreMark:
		return "meta mark set ct mark"
	case SetZone:
		return fmt.Sprintf("ct zone set %d", uint16(v))
	}
	panic(fmt.Sprintf("redirect: no text for %T", target))
}

// String returns the protocol's name.
func (p Proto) String() string {
	if p == UDP {
		return "udp"
	}
	return "tcp"
}

// String returns the decimal ID.
func (i ID) String() string { return strconv.FormatUint(uint64(i), 10) }

func portText(p uint16) string { return strconv.Itoa(int(p)) }

func quoted[T ~[]string](names T) string { return set(names, strconv.Quote) }

// set returns one element without braces, and several in braces.
func set[T ~[]E, E any](elements T, text func(E) string) string {
	items := oneEach(elements, text)
	if len(items) == 1 {
		return items[0]
	}
	return "{ " + strings.Join(items, ", ") + " }"
}

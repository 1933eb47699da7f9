package redirect

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// multiport is how many ports one multiport match can have (XT_MULTI_PORTS, linux/netfilter/xt_multiport.h). A range
// counts as two.
const multiport = 15

// Iptables returns the rules that iptables needs for the rule, in order. One iptables rule cannot have a list, so a
// list becomes several rules.
func (r Rule) Iptables() []Rule {
	singles := []Rule{{Target: r.Target, Why: r.Why}}
	for place := range matchPlaces {
		for _, m := range r.Matches {
			if placeOf(m) == place {
				singles = cross(singles, alternatives(m))
			}
		}
	}
	return singles
}

// cross combines every rule with every alternative.
func cross(rules []Rule, alternatives []Match) []Rule {
	out := make([]Rule, 0, len(rules)*len(alternatives))
	for _, r := range rules {
		for _, m := range alternatives {
			with := r
			with.Matches = append(r.Matches[:len(r.Matches):len(r.Matches)], m)
			out = append(out, with)
		}
	}
	return out
}

// matchPlaces is the number of positions in the text of a rule: interface, address, protocol, ports, all others.
const matchPlaces = 5

func placeOf(match Match) int {
	switch match.(type) {
	case InInterface, OutInterface:
		return 0
	case From, To, NotTo:
		return 1
	case Proto:
		return 2
	case SourcePort, DestPorts, NotDestPorts:
		return 3
	}
	return matchPlaces - 1
}

// alternatives splits a match into those that one iptables rule can have.
func alternatives(match Match) []Match {
	switch m := match.(type) {
	case InInterface:
		return oneEach(m, func(name string) Match { return InInterface{name} })
	case OutInterface:
		return oneEach(m, func(name string) Match { return OutInterface{name} })
	case From:
		return oneEach(m, func(p netip.Prefix) Match { return From{p} })
	case To:
		return oneEach(m, func(p netip.Prefix) Match { return To{p} })
	case DestPorts:
		return portGroups(m)
	case OriginalDestPorts:
		return oneEach(m, func(r PortRange) Match { return OriginalDestPorts{r} })
	case OriginalTo:
		return oneEach(m, func(p netip.Prefix) Match { return OriginalTo{p} })
	case SocketGroups:
		return oneEach(m, func(id ID) Match { return SocketGroups{id} })
	}
	return []Match{match}
}

// oneEach applies one to each element of a list.
func oneEach[E, T any](list []E, one func(E) T) []T {
	out := make([]T, len(list))
	for i, e := range list {
		out[i] = one(e)
	}
	return out
}

// portGroups splits ports into lists that one multiport match can have.
func portGroups(ranges DestPorts) (out []Match) {
	first, places := 0, 0
	for i, r := range ranges {
		need := 1
		if r.First != r.Last {
			need = 2
		}
		if places+need > multiport {
			out, first, places = append(out, ranges[first:i:i]), i, 0
		}
		places += need
	}
	return append(out, ranges[first:])
}

// IptablesText returns one of the rules of Iptables in the syntax of iptables-restore, without the chain.
func (r Rule) IptablesText() string {
	var words []string
	for _, m := range r.Matches {
		words = append(words, iptablesMatch(m))
	}
	return strings.Join(append(words, "-j "+iptablesTarget(r.Target)), " ")
}

// Source of the options: net/netfilter/xt_conntrack.c, revision 3, which supports port ranges since Linux 2.6.39.
const conntrack, ctOriginal = "-m conntrack ", "--ctdir ORIGINAL"

func iptablesMatch(match Match) string {
	switch m := match.(type) {
	case InInterface:
		return "-i " + interfaceWord(m[0])
	case OutInterface:
		return "-o " + interfaceWord(m[0])
	case From:
		return "-s " + m[0].String()
	case To:
		return "-d " + m[0].String()
	case NotTo:
		return "! -d " + netip.Prefix(m).String()
	case Proto:
		return "-p " + m.String()
	case SourcePort:
		return "--sport " + strconv.Itoa(int(m))
	case DestPorts:
		return portsWords("", oneEach(m, colons))
	case NotDestPorts:
		return portsWords("! ", oneEach(m, portText))
	case Opening:
		return "--tcp-flags FIN,SYN,RST,ACK SYN" // the options of -p tcp; source: net/netfilter/xt_tcpudp.c
	case Mark:
		return fmt.Sprintf("-m mark --mark %d", uint32(m))
	case NotMark:
		return fmt.Sprintf("-m mark ! --mark %d", uint32(m))
	case ConnMark:
		return fmt.Sprintf("-m connmark --mark %d", uint32(m))
	}
	return iptablesOwner(match)
}

// iptablesOwner returns the text of matches on the sending process, the marks and the connection.
func iptablesOwner(match Match) string {
	switch m := match.(type) {
	case SocketUID:
		return "-m owner --uid-owner " + ID(m).String()
	case SocketGID:
		return "-m owner --gid-owner " + ID(m).String()
	case SocketGroups:
		return "-m owner --gid-owner " + m[0].String()
	case Original:
		return conntrack + ctOriginal
	case OriginalDestPorts:
		return conntrack + "--ctorigdstport " + colons(m[0]) + " " + ctOriginal
	case OriginalTo:
		return conntrack + "--ctorigdst " + m[0].String() + " " + ctOriginal
	case ConnState:
		return conntrack + "--ctstate " + strings.ToUpper(string(m))
	}
	panic(fmt.Sprintf("redirect: no iptables match for %T", match))
}

// interfaceWord returns the name in iptables' syntax: a prefix ends in `+`.
func interfaceWord(name string) string {
	if prefix, isPrefix := InterfacePrefix(name); isPrefix {
		return prefix + "+"
	}
	return name
}

// colons returns the range in iptables' syntax, first:last.
func colons(r PortRange) string { return strings.ReplaceAll(r.String(), "-", ":") }

func portsWords(not string, items []string) string {
	if len(items) == 1 {
		return not + "--dport " + items[0]
	}
	return "-m multiport " + not + "--dports " + strings.Join(items, ",")
}

func iptablesTarget(target Target) string {
	switch v := target.(type) {
	case Return:
		return "RETURN"
	case Accept:
		return "ACCEPT"
	case Drop:
		return "DROP"
	case Jump:
		return string(v)
	case RedirectTo:
		return fmt.Sprintf("REDIRECT --to-ports %d", v)
	case TProxyTo:
		return fmt.Sprintf("TPROXY --on-port %d --tproxy-mark %d", v.Port, v.Mark)
	case SetMark:
		return fmt.Sprintf("MARK --set-mark %d", uint32(v))
	case SaveMark:
		return "CONNMARK --save-mark"
	case RestoreMark:
		return "CONNMARK --restore-mark"
	case SetZone:
		return fmt.Sprintf("CT --zone %d", uint16(v))
	}
	panic(fmt.Sprintf("redirect: no iptables target for %T", target))
}

package redirect

import (
	"net/netip"
	"slices"
)

// Istio's names and numbers, so that Envoy, and tools that know Istio's rules, find what they expect. Source:
// istio/istio tools/istio-iptables/pkg/constants.
const (
	chainInbound    = "ISTIO_INBOUND"
	chainOutput     = "ISTIO_OUTPUT"
	chainRedirect   = "ISTIO_REDIRECT"
	chainInRedirect = "ISTIO_IN_REDIRECT"
	chainTProxy     = "ISTIO_TPROXY"
	chainDivert     = "ISTIO_DIVERT"
	chainDrop       = "ISTIO_DROP"
	chainOutputDNS  = "ISTIO_OUTPUT_DNS"
	chainGroups     = "ISTIO_OUTPUT_GROUPS" // ours: the rules for the groups that are included
	// The guard's chains are ours, too.
	chainInput       = "ISTIO_INPUT"
	chainForward     = "ISTIO_FORWARD"
	chainGuardIn     = "ISTIO_GUARD_IN"
	chainGuardOut    = "ISTIO_GUARD_OUT"
	chainGuardGroups = "ISTIO_GUARD_GROUPS"

	markProxy    = 1337 // set by Envoy on upstream sockets with the client's address, and by TPROXY
	markLoopback = 1338 // the sidecar calls its own pod
	tproxyTable  = 133  // the routing table of packets with markProxy

	dnsPort = 53
	// ZoneApp is the conntrack zone of the packets between apps and the sidecar's DNS listener. An app's query and the
	// sidecar's own query to the resolver may have the same addresses and ports. In one zone they would be one
	// connection. The number is Istio's.
	ZoneApp = 2
)

var (
	loopbackInterface = Interfaces{"lo"}
	dnsPorts          = onlyPort(dnsPort)
)

func onlyPort(p Port) DestPorts { return DestPorts{{uint16(p), uint16(p)}} }

// RuleSet derives the packet rules, addresses and routes. Mode NONE has none.
func (s Spec) RuleSet() RuleSet {
	var set RuleSet
	if s.Mode != ModeRedirect && s.Mode != ModeTProxy {
		return set
	}
	for _, family := range s.Families.Of() {
		b := builder{s, family}
		if family == IPv6 { // IPv4 needs no address for 127.0.0.6: all of 127.0.0.0/8 is local
			_, passthrough, _ := family.addresses()
			set.Addresses = append(set.Addresses, Address{family, passthrough})
		}
		if s.Mode == ModeTProxy {
			set.Routes = append(set.Routes, PolicyRoute{family, markProxy, tproxyTable})
		}
		for _, table := range []Table{b.raw(), b.mangle(), b.filter(), b.nat()} {
			if len(table.Chains) > 0 {
				set.Tables = append(set.Tables, table)
			}
		}
	}
	return set
}

// builder derives the rules of one IP family.
type builder struct {
	Spec
	family Family
}

// table returns the table of the chains that have rules.
func (b builder) table(kind Kind, chains ...Chain) Table {
	t := Table{Family: b.family, Kind: kind}
	for _, c := range chains {
		if len(c.Rules) > 0 {
			t.Chains = append(t.Chains, c)
		}
	}
	return t
}

func rule(why string, target Target, matches ...Match) Rule {
	return Rule{Matches: matches, Target: target, Why: why}
}

// owned returns the rule twice: for the sidecar's user and for its group.
func (b builder) owned(why string, target Target, matches ...Match) []Rule {
	rules := []Rule{rule(why, target, append([]Match{SocketUID(b.ProxyUID)}, matches...)...)}
	if b.ProxyGID != 0 {
		rules = append(rules, rule(why, target, append([]Match{SocketGID(b.ProxyGID)}, matches...)...))
	}
	return rules
}

// raw puts the apps' DNS queries that nat redirects, and the sidecar's answers to them, into a conntrack zone of their
// own. Both stay on lo, so no packet from outside belongs to that zone. All other packets stay in their zone. That
// includes the sidecar's own queries, which Istio puts into zone 1: there, others' address translation in the pod would
// not find the answers' connection.
func (b builder) raw() Table {
	groups, excluded := b.IncludeOutboundGroups, b.ExcludeOutboundGroups.List()
	if !b.DNSCapture || b.ExcludeOutboundPorts.has(dnsPort) || !groups.All() && len(groups.List()) == 0 {
		return Table{} // no query is redirected
	}
	out := Chain{Name: chainOutputDNS, Hook: Output}
	add := func(rules ...Rule) { out.Rules = append(out.Rules, rules...) }
	// Answers come first: the app may have sent its query from port 53.
	add(b.owned("the sidecar's answer to an app", SetZone(ZoneApp), UDP, SourcePort(b.DNSPort))...)
	add(b.owned("the sidecar's own query", Return{}, UDP, dnsPorts)...)
	if len(b.ExcludeInterfaces) > 0 {
		add(rule("excluded interface", Return{}, OutInterface(b.ExcludeInterfaces)))
	}
	query := []Match{UDP, dnsPorts}
	switch {
	case !groups.All():
		query = append([]Match{SocketGroups(groups.List())}, query...)
	case len(excluded) > 0:
		add(rule("a group that is left out", Return{}, SocketGroups(excluded)))
	}
	add(rule("an app's query", SetZone(ZoneApp), query...))
	return b.table(Raw, out)
}

func (b builder) nat() Table {
	captureIn := Chain{Name: chainInRedirect,
		Rules: []Rule{rule("to the sidecar's inbound listener", RedirectTo(b.InboundPort), TCP)}}
	captureOut := Chain{Name: chainRedirect,
		Rules: []Rule{rule("to the sidecar's outbound listener", RedirectTo(b.OutboundPort), TCP)}}
	in, out := b.natInbound(), b.natOutput()
	groups := Chain{Name: chainGroups, Rules: b.natApp()}
	chains := []Chain{}
	for _, target := range []Chain{captureIn, captureOut} {
		if jumpsTo(target.Name, in, out) || jumpsTo(chainGroups, out) && jumpsTo(target.Name, groups) {
			chains = append(chains, target)
		}
	}
	if jumpsTo(chainGroups, out) {
		chains = append(chains, groups)
	}
	return b.table(NAT, append(chains, in, out)...)
}

func jumpsTo(name string, chains ...Chain) bool {
	for _, c := range chains {
		for _, r := range c.Rules {
			if r.Target == Jump(name) {
				return true
			}
		}
	}
	return false
}

func (b builder) natInbound() Chain {
	inbound := b.inbound(func(match ...Match) []Rule {
		return []Rule{rule("inbound", Jump(chainInRedirect), append([]Match{TCP}, match...)...)}
	})
	return Chain{Name: chainInbound, Hook: Prerouting, Rules: b.fromOutside(Jump(chainRedirect), inbound)}
}

// fromOutside returns the rules for what arrives from outside the pod. Traffic of machines behind the pod counts as
// outbound and gets the target. All else is inbound and gets the given rules for ports.
func (b builder) fromOutside(outbound Target, inbound []Rule) (rules []Rule) {
	if nics := b.RerouteVirtualInterfaces; len(nics) > 0 {
		// An interface in both lists is rerouted, as in Istio.
		rules = append(rules, b.includeRanges(outbound, "from a virtual machine's interface: outbound", InInterface(nics))...)
		rules = append(rules, rule("from a virtual machine's interface", Return{}, InInterface(nics)))
	}
	if len(b.ExcludeInterfaces) > 0 {
		rules = append(rules, rule("excluded interface", Return{}, InInterface(b.ExcludeInterfaces)))
	}
	if b.Mode == ModeRedirect {
		rules = append(rules, inbound...)
	}
	return rules
}

// inbound returns the rules that select inbound ports. capture returns the rules for what is selected.
func (b builder) inbound(capture func(...Match) []Rule) []Rule {
	if b.IncludeInboundPorts.All() {
		excluded := b.ExcludeInboundPorts.union(hbonePort)
		rules := []Rule{rule("excluded inbound port", Return{}, TCP, DestPorts(excluded.List()))}
		return append(rules, capture()...)
	}
	if included := b.IncludeInboundPorts.without(hbonePort); !included.Empty() {
		return capture(DestPorts(included.List()))
	}
	return nil
}

func (b builder) natOutput() Chain {
	c := Chain{Name: chainOutput, Hook: Output}
	add := func(rules ...Rule) { c.Rules = append(c.Rules, rules...) }
	loopback, passthrough, _ := b.family.addresses()
	lo := OutInterface(loopbackInterface)

	add(b.leftAlone(TCP, UDP)...)
	add(rule("the sidecar passes inbound traffic on to the app", Return{}, lo, From{passthrough}))
	add(b.proxyOutput(lo, loopback)...)
	if !b.capturesLoopback() {
		add(b.appOnLoopback(lo)...)
	}
	add(b.groupsOutput(b.natApp(), chainGroups)...)
	return c
}

// leftAlone lets pass what the settings exclude for every sender.
func (b builder) leftAlone(protos ...Proto) (rules []Rule) {
	if len(b.ExcludeInterfaces) > 0 {
		rules = append(rules, rule("excluded interface", Return{}, OutInterface(b.ExcludeInterfaces)))
	}
	if ports := b.ExcludeOutboundPorts; !ports.Empty() {
		for _, proto := range protos {
			rules = append(rules, rule("excluded outbound port", Return{}, proto, DestPorts(ports.List())))
		}
	}
	return rules
}

// natApp redirects what an app sends.
func (b builder) natApp() []Rule {
	if !b.capturesLoopback() {
		return b.appOutput(Jump(chainRedirect), RedirectTo(b.DNSPort))
	}
	loopback, _, _ := b.family.addresses()
	return b.appOutput(Jump(chainRedirect), RedirectTo(b.DNSPort), rule("loopback", Return{}, To{loopback}))
}

// groupsOutput sends the remaining traffic, that of apps, to the captured rules if its group is captured. With included
// groups the rules are in the named chain. Packets without a socket have no group: they are captured only if all groups
// are, as in Istio.
func (b builder) groupsOutput(captured []Rule, chain string) []Rule {
	switch include, exclude := b.IncludeOutboundGroups, b.ExcludeOutboundGroups.List(); {
	case len(captured) == 0:
		return nil
	case include.All() && len(exclude) > 0:
		return append([]Rule{rule("a group that is left out", Return{}, SocketGroups(exclude))}, captured...)
	case include.All():
		return captured
	case len(include.List()) > 0:
		return []Rule{rule("a group that is captured", Jump(chain), SocketGroups(include.List()))}
	}
	return nil
}

// proxyOutput lets the sidecar's own traffic pass. Only its calls to its own pod are sent to its inbound listener.
func (b builder) proxyOutput(lo OutInterface, loopback netip.Prefix) []Rule {
	direct := NotDestPorts{hbonePort}
	if b.DNSCapture {
		direct = NotDestPorts{dnsPort, hbonePort}
	}
	ownPod := b.owned("the sidecar calls its own pod", Jump(chainInRedirect), lo, NotTo(loopback), TCP, direct)
	pass := b.owned("the sidecar's own traffic", Return{})
	var rules []Rule
	if b.Mode == ModeTProxy {
		// A sidecar with a user of its own would otherwise get its connection to the app back by the next rule. That
		// rule is for packets without the mark: the wait's probe and Istio's validation run as that user, too, and have
		// no transparent socket.
		rules = append(rules,
			rule("the sidecar to the app with the client's address", Return{}, SocketUID(b.ProxyUID), Mark(markProxy)))
	}
	rules = append(rules, ownPod[0], pass[0])
	for i := 1; i < len(pass); i++ {
		// A TPROXY sidecar that runs as root is recognised by its group only. Mark 1338 sends its calls to the
		// transparent listener. DNAT here would hide the original destination from it.
		if b.Mode == ModeRedirect {
			rules = append(rules, ownPod[i])
		}
		rules = append(rules, pass[i])
	}
	return rules
}

// appOnLoopback lets calls inside the pod pass, except for DNS if DNS is captured.
func (b builder) appOnLoopback(lo OutInterface) []Rule {
	if b.DNSCapture {
		return []Rule{rule("inside the pod", Return{}, lo, TCP, NotDestPorts{dnsPort})}
	}
	return []Rule{rule("inside the pod", Return{}, lo)}
}

// appOutput returns the rules for what apps send to the sidecar: TCP goes to the target tcp, DNS to dns. The rules in
// between apply to TCP before all others.
func (b builder) appOutput(tcp, dns Target, between ...Rule) (rules []Rule) {
	if b.DNSCapture {
		rules = append(rules, rule("an app's DNS query", dns, UDP, dnsPorts), rule("an app's DNS query", dns, TCP, dnsPorts))
	}
	rules = append(rules, between...)
	if excluded := b.ExcludeOutboundIPRanges.Of(b.family); len(excluded) > 0 {
		rules = append(rules, rule("excluded destination", Return{}, To(excluded)))
	}
	switch ports := b.IncludeOutboundPorts; {
	case ports.All():
		return append(rules, rule("included outbound port", tcp, TCP))
	case !ports.Empty():
		rules = append(rules, rule("included outbound port", tcp, TCP, DestPorts(ports.List())))
	}
	return append(rules, b.includeRanges(tcp, "outbound")...)
}

// includeRanges sends TCP to the included destinations to the target.
func (b builder) includeRanges(target Target, why string, match ...Match) []Rule {
	match = append(match, TCP)
	if b.IncludeOutboundIPRanges.All() {
		return []Rule{rule(why, target, match...)}
	}
	if included := b.IncludeOutboundIPRanges.Of(b.family); len(included) > 0 {
		return []Rule{rule(why, target, append(match, To(included))...)}
	}
	return nil
}

// capturesLoopback reports whether an included prefix of either family is a loopback prefix. As in Istio, it then
// captures loopback destinations of both families.
func (b builder) capturesLoopback() bool {
	loopback := func(p netip.Prefix) bool { return p.Addr().IsLoopback() }
	return slices.ContainsFunc(b.IncludeOutboundIPRanges.Of(IPv4), loopback) ||
		slices.ContainsFunc(b.IncludeOutboundIPRanges.Of(IPv6), loopback)
}

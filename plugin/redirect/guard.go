package redirect

// filter guards the pod's border. nat judges the first packet of what connection tracking takes for a connection, and a
// process without any privilege can have it take a later connection for an old one: it leaves an entry that nobody
// redirected (by a SYN that is bound to lo, or from an address that is not the pod's), and opens the connection with
// the same four numbers, in either direction. So every segment that opens a connection is judged once more where it
// crosses the border, by the same rules, whatever connection tracking says: what they would have redirected and
// did not is dropped. No TCP connection comes about across the border without such a segment.
//
// Output and not postrouting: what is forwarded for somebody behind the pod never passes it, and the interface is the
// one that nat's rules have seen, also where somebody else then leads a call inside the pod to a container or machine
// behind it.
//
// Whoever else translates destinations in the pod comes after nat's rules. What they have let pass for its destination
// is let pass here by the same one, which connection tracking knows, and not by what it was translated to.
func (b builder) filter() Table {
	var translated []Rule
	if excluded := b.ExcludeOutboundIPRanges.Of(b.family); len(excluded) > 0 {
		translated = append(translated, rule("excluded destination, whatever it was translated to", Return{}, TCP,
			OriginalTo(excluded)))
	}
	groups := Chain{Name: chainGuardGroups, Rules: b.appOutput(Drop{}, Drop{}, translated...)}
	guardOut := b.guardOutbound(groups)
	switch {
	case jumpsTo(groups.Name, guardOut) && drops(groups):
	case drops(guardOut):
		groups.Rules = nil
	default:
		return b.table(Filter, b.guardInbound()...)
	}
	out := Chain{Name: chainOutput, Hook: Output, Rules: []Rule{
		rule("opens a connection", Jump(chainGuardOut), TCP, Opening{})}}
	if b.DNSCapture {
		loopback, _, _ := b.family.addresses() // where the sidecar is asked, perhaps at the same port
		out.Rules = append(out.Rules, rule("a DNS query", Jump(chainGuardOut), NotTo(loopback), UDP, dnsPorts))
	}
	return b.table(Filter, append(b.guardInbound(), groups, guardOut, out)...)
}

func drops(c Chain) bool {
	for _, r := range c.Rules {
		if r.Target == Target(Drop{}) {
			return true
		}
	}
	return false
}

// guardOutbound drops what nat's output chain should have redirected: the same rules in the same order, but that
// everything on lo stays inside the pod.
func (b builder) guardOutbound(groups Chain) Chain {
	c := Chain{Name: chainGuardOut}
	add := func(rules ...Rule) { c.Rules = append(c.Rules, rules...) }
	loopback, _, _ := b.family.addresses()

	add(rule("does not leave the pod", Return{}, OutInterface(loopbackInterface)))
	protos, listeners := []Proto{TCP}, PortsOf(uint16(b.OutboundPort))
	if b.DNSCapture {
		protos, listeners = append(protos, UDP), listeners.union(uint16(b.DNSPort))
	}
	add(b.leftAlone(protos...)...)
	if ports := b.ExcludeOutboundPorts; !ports.Empty() {
		for _, proto := range protos {
			add(rule("excluded outbound port, whatever it was translated to", Return{}, proto, OriginalDestPorts(ports.List())))
		}
	}
	add(b.owned("the sidecar's own traffic", Return{})...)
	add(rule("to the sidecar", Return{}, To{loopback}, TCP, DestPorts(listeners.List())))
	add(b.groupsOutput(groups.Rules, groups.Name)...)
	return c
}

// guardPorts are the rules for inbound ports. They judge a packet that goes its connection's way by the original port,
// and one that is an answer to connection tracking by its own: of that, the original port is the other side's choice.
func (b builder) guardPorts() []Rule {
	if !b.IncludeInboundPorts.All() {
		included := b.IncludeInboundPorts.without(hbonePort)
		if included.Empty() {
			return nil
		}
		return []Rule{
			rule("inbound", Drop{}, TCP, OriginalDestPorts(included.List())),
			rule("not an inbound port, whatever it was translated to", Return{}, Original{}),
			rule("inbound, in the way of answers", Drop{}, TCP, DestPorts(included.List())),
		}
	}
	excluded := b.ExcludeInboundPorts.union(hbonePort)
	rules := []Rule{rule("excluded inbound port", Return{}, TCP, DestPorts(excluded.List()))}
	if published := b.ExcludeInboundPorts.without(append(proxyOwnPorts, hbonePort)...); !published.Empty() {
		rules = append(rules, rule("excluded inbound port, whatever it was translated to", Return{}, TCP,
			OriginalDestPorts(published.List())))
	}
	return append(rules, rule("inbound", Drop{}, TCP))
}

// guardInbound drops what nat's prerouting chain should have redirected, on its way to a socket of the pod or through
// the pod. TPROXY has no need of it, for it judges each such segment itself.
func (b builder) guardInbound() []Chain {
	guard := Chain{Name: chainGuardIn}
	if guard.Rules = b.fromOutside(Drop{}, b.guardPorts()); !drops(guard) {
		return nil
	}
	in := Chain{Name: chainInput, Hook: Input}
	in.Rules = append(in.Rules, rule("comes from inside the pod", Return{}, InInterface(loopbackInterface)))
	if nics := b.RerouteVirtualInterfaces; len(nics) > 0 {
		in.Rules = append(in.Rules, rule("to the sidecar's outbound listener", Return{}, InInterface(nics), TCP,
			onlyPort(b.OutboundPort)))
	}
	if b.Mode == ModeRedirect {
		in.Rules = append(in.Rules, rule("to the sidecar's inbound listener", Return{}, TCP,
			onlyPort(b.InboundPort)))
	}
	jump := rule("opens a connection", Jump(chainGuardIn), TCP, Opening{})
	in.Rules = append(in.Rules, jump)
	return []Chain{guard, in, {Name: chainForward, Hook: Forward, Rules: []Rule{jump}}}
}

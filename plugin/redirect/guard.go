package redirect

// filter returns the guard of the pod's border. nat sees only the first packet of a connection, as connection tracking
// tells connections apart. A process without privileges can make connection tracking assign a later connection to an
// old entry: it creates an entry that is not redirected (by a SYN that is bound to lo, or from an address that is not
// the pod's), and then opens the connection with the same addresses and ports, in either direction. So the guard checks
// every segment that opens a TCP connection (SYN without ACK) once more where it crosses the border. It uses the same
// rules as nat, whatever connection tracking says, and drops what nat should have redirected. No TCP connection can
// cross the border without such a segment.
//
// The outbound guard hooks into output, not postrouting, for two reasons. Traffic that is forwarded for a machine
// behind the pod does not pass output. And in output the interface is still the one that nat's rules saw, even if
// somebody else's DNAT then sends a call inside the pod to a machine behind it.
//
// DNAT rules of others run after nat's rules. A packet that nat's rules let pass for its destination passes here by the
// same original destination, which connection tracking knows, and not by the translated one.
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
		loopback, _, _ := b.family.addresses() // where apps ask the sidecar, perhaps on port 53 too
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

// guardOutbound drops what nat's output chain should have redirected. It has the same rules in the same order, except
// that all traffic on lo passes: it stays inside the pod.
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

// guardPorts returns the rules for inbound ports. For a packet in its connection's original direction they match the
// original port. For one in the reply direction they match the packet's own port: there the peer has chosen the
// original port.
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

// guardInbound drops what nat's prerouting chain should have redirected, before it reaches a socket of the pod or is
// forwarded. TPROXY mode does not need the rules for ports, because mangle checks every such segment itself.
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

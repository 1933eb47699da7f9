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
func (b builder) filter() Table {
	groups := Chain{Name: chainGuardGroups, Rules: b.appOutput(Drop{}, Drop{})}
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
	add(b.owned("the sidecar's own traffic", Return{})...)
	add(rule("to the sidecar", Return{}, To{loopback}, TCP, DestPorts(listeners.List())))
	add(b.groupsOutput(groups.Rules, groups.Name)...)
	return c
}

// guardInbound drops what nat's prerouting chain should have redirected, on its way to a socket of the pod or through
// the pod. TPROXY has no need of it, for it judges each such segment itself.
func (b builder) guardInbound() []Chain {
	guard := Chain{Name: chainGuardIn}
	if guard.Rules = b.fromOutside(Drop{}, Drop{}); !drops(guard) {
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

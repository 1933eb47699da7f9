package redirect

// mangle drops invalid packets if DropInvalid is set, and implements TPROXY. It gives inbound packets to the sidecar's
// transparent socket without changing their addresses. What the sidecar sends to the app with the client's address is
// marked, so that the app's answers return to the sidecar.
func (b builder) mangle() Table {
	in, out := Chain{Name: chainInbound, Hook: Prerouting}, Chain{Name: chainOutput, Hook: Output}
	var targets []Chain
	tproxy := b.Mode == ModeTProxy
	if tproxy {
		in.Rules, out.Rules = b.mangleExcluded()
	}
	if b.DropInvalid {
		targets = append(targets, Chain{Name: chainDrop, Rules: []Rule{rule("invalid", Drop{})}})
		in.Rules = append(in.Rules, rule("a packet of no connection and none that could start one", Jump(chainDrop), Invalid))
	}
	if tproxy {
		in.Rules = append(in.Rules, b.tproxyInbound()...)
		out.Rules = append(out.Rules, b.tproxyOutput()...)
		if jumpsTo(chainTProxy, in) {
			targets = append(targets, b.tproxyTargets()...)
		}
	}
	return b.table(Mangle, append(targets, in, out)...)
}

// mangleExcluded exempts the excluded interfaces, and those whose traffic nat treats as outbound.
func (b builder) mangleExcluded() (in, out []Rule) {
	if nics := b.RerouteVirtualInterfaces; len(nics) > 0 {
		in = append(in, rule("from a virtual machine's interface", Return{}, InInterface(nics)))
	}
	if names := b.ExcludeInterfaces; len(names) > 0 {
		in = append(in, rule("excluded interface", Return{}, InInterface(names)))
		out = append(out, rule("excluded interface", Return{}, OutInterface(names)))
	}
	return in, out
}

func (b builder) tproxyTargets() []Chain {
	loopback, _, _ := b.family.addresses()
	return []Chain{
		{Name: chainDivert, Rules: []Rule{
			rule("to the socket the connection has", SetMark(markProxy)),
			rule("to the socket the connection has", Accept{}),
		}},
		{Name: chainTProxy, Rules: []Rule{
			rule("to the sidecar's inbound listener", TProxyTo{b.InboundPort, markProxy}, TCP, NotTo(loopback)),
		}},
	}
}

func (b builder) tproxyInbound() []Rule {
	_, passthrough, _ := b.family.addresses()
	lo := InInterface(loopbackInterface)
	rules := []Rule{
		rule("the sidecar to the app with the client's address: remember the connection", SaveMark{}, TCP, Mark(markProxy)),
		rule("the sidecar to the app with the client's address", Return{}, TCP, Mark(markProxy)),
		rule("the sidecar passes inbound traffic on to the app", Return{}, TCP, From{passthrough}, lo),
		rule("inside the pod, unless the sidecar calls it", Return{}, TCP, lo, NotMark(markLoopback)),
	}
	return append(rules, b.inbound(func(match ...Match) []Rule {
		return []Rule{
			// This rule comes before those on the connection's state. Connection tracking may assign a SYN to an entry
			// that the app itself created, and take it for an answer.
			rule("inbound, opens a connection", Jump(chainTProxy), append([]Match{TCP, Opening{}}, match...)...),
			rule("inbound, open connection", Jump(chainDivert), append([]Match{TCP, Established}, match...)...),
			rule("inbound", Jump(chainTProxy), append([]Match{TCP}, match...)...),
		}
	})...)
}

func (b builder) tproxyOutput() []Rule {
	loopback, _, _ := b.family.addresses()
	lo := OutInterface(loopbackInterface)
	rules := []Rule{rule("the sidecar to the app with the client's address", Return{}, TCP, lo, Mark(markProxy))}
	rules = append(rules, b.owned("the sidecar calls its own pod", SetMark(markLoopback), lo, NotTo(loopback), TCP)...)
	return append(rules, rule("the app answers the client: back to the sidecar", RestoreMark{}, TCP, ConnMark(markProxy)))
}

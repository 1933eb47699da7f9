package trace

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/istio-pod-network/controller/plugin/redirect"
)

// walk is a packet on its way.
type walk struct {
	rules   Rules
	pod     Pod
	packet  Packet // as it is by now
	in, out string // the interfaces, as the hook knows them
	conn    conn
	taker   redirect.Port // of the transparent socket that has been given the packet, 0 if none
	way     Way
}

// conn is what connection tracking knows of the packet.
type conn struct {
	asked       bool // it has seen the packet
	known       bool // the packet belongs to a connection, perhaps a new one
	established bool
	reply       bool
	judged      bool // nat has been asked
	untracked   bool
	zoned       bool
	mark        uint32
	zone        uint16
	original    netip.AddrPort
	led         netip.AddrPort // to which nat has led the connection's first packet, if it has
}

// verdict is what becomes of a packet after a rule or a chain.
type verdict int

const (
	next     verdict = iota // the next rule
	back                    // the end of this chain
	accepted                // the end of this base chain, and of what it was called from
	dropped
)

// send is the way of a packet of the pod's own.
func (w *walk) send() {
	w.out = w.route()
	w.note("routing", fmt.Sprintf("%s: by %s", w.whose(), w.out))
	if w.hook(redirect.Output) == dropped {
		return
	}
	// The hook's interface stays the one of the first routing: struct nf_hook_state in include/linux/netfilter.h.
	w.conn.judged = true
	if out := w.route(); out != w.out {
		w.note("routing", fmt.Sprintf("again, to %s: by %s", w.destText(), out))
		w.out = out
	}
	w.giveBack() // in postrouting
	if w.out != loopback {
		w.leave()
		return
	}
	w.packet.Owner = nil // skb_orphan in drivers/net/loopback.c
	w.arrive(loopback)
}

// arrive is the way of a packet that comes by an interface.
func (w *walk) arrive(in string) {
	w.in, w.out = in, ""
	w.note("interface", "arrives by "+in)
	if w.hook(redirect.Prerouting) == dropped {
		return
	}
	w.conn.judged = true
	if w.taker == 0 && w.route() != loopback {
		w.out = w.route()
		w.note("routing", fmt.Sprintf("%s: forwarded by %s", w.whose(), w.out))
		if w.hook(redirect.Forward) != dropped {
			w.leave()
		}
		return
	}
	w.note("routing", "to a socket of the pod")
	if w.hook(redirect.Input) != dropped {
		w.deliver()
	}
}

// route returns the interface that the packet leaves by; lo is for the pod itself.
func (w *walk) route() string {
	for _, r := range w.rules.Routes {
		if r.Family == w.packet.Family() && r.Mark == w.packet.Mark {
			return loopback
		}
	}
	if to := w.packet.Dest.Addr(); !w.pod.local(to) {
		return w.pod.link(to).Name
	}
	return loopback
}

// whose says whom the packet is for.
func (w *walk) whose() string {
	to := w.packet.Dest.Addr()
	switch {
	case w.pod.local(to):
		return to.String() + " is the pod's"
	case w.route() == loopback:
		return fmt.Sprintf("mark %d is for the pod", w.packet.Mark)
	}
	return to.String() + " is outside the pod"
}

// hooked is a base chain at its place among those of a hook.
type hooked struct {
	place    int // of what calls it
	priority int // among those that are called together
	kind     redirect.Kind
	name     string
	family   redirect.Family
	table    redirect.Table
	rules    []Rule
}

// The places of connection tracking and of nat, which calls all nat chains in the order of their priorities; those of
// iptables have its place for theirs. Source: NF_IP_PRI_CONNTRACK, NF_IP_PRI_NAT_DST and NF_IP_PRI_NAT_SRC in
// include/uapi/linux/netfilter_ipv4.h; nf_nat_register_fn in net/netfilter/nf_nat_core.c.
const (
	placeConntrack = -200
	placeNAT       = -100
	placeSource    = 100 // in input and postrouting
)

// hook takes the packet through the base chains of a hook.
func (w *walk) hook(hook redirect.Hook) verdict {
	for _, c := range w.hookedAt(hook) {
		if c.place >= placeConntrack {
			w.track()
		}
		if c.place >= placeNAT {
			w.lead(hook)
		}
		if hook == redirect.Input && c.place > placeSource {
			w.giveBack()
		}
		if c.kind == redirect.NAT && !w.asksNAT(hook, c) {
			continue
		}
		switch w.chain(hook, c, c.name, c.rules) {
		case dropped:
			w.way.Landed = Dropped
			return dropped
		default:
		}
	}
	w.track()
	w.lead(hook)
	return next
}

// hookedAt lists the base chains of a hook in their order.
func (w *walk) hookedAt(hook redirect.Hook) (all []hooked) {
	family := w.packet.Family()
	for _, t := range w.rules.Tables {
		priority := t.Kind.Priority()
		if t.Kind == redirect.NAT && w.rules.Iptables {
			priority = placeNAT
		}
		for _, c := range t.Chains {
			if t.Family == family && c.Hook == hook {
				all = append(all, hooked{place: priority, priority: priority, kind: t.Kind, name: c.Name, family: family,
					table: t, rules: w.rulesOf(c)})
			}
		}
	}
	for _, f := range w.rules.Foreign {
		if f.Family == family && f.Hook == hook {
			all = append(all, hooked{place: f.Priority, priority: f.Priority, kind: f.Kind, name: f.Name, family: family,
				rules: f.Rules})
		}
	}
	for i := range all {
		if all[i].kind == redirect.NAT {
			all[i].place = placeNAT
		}
	}
	slices.SortStableFunc(all, func(a, b hooked) int {
		if a.place != b.place {
			return a.place - b.place
		}
		return a.priority - b.priority
	})
	return all
}

// rulesOf are a chain's rules as the backend holds them.
func (w *walk) rulesOf(c redirect.Chain) (list []Rule) {
	for _, r := range c.Rules {
		singles := []redirect.Rule{r}
		if w.rules.Iptables {
			singles = r.Iptables()
		}
		for _, single := range singles {
			list = append(list, Rule{single.Matches, single.Target, single.Why})
		}
	}
	return list
}

// track asks connection tracking, once. What comes back by lo it has seen (nf_conntrack_in in
// net/netfilter/nf_conntrack_core.c), and what belongs to a connection of another zone is new to it.
func (w *walk) track() {
	if w.conn.asked {
		return
	}
	w.conn.asked = true
	if w.packet.Invalid || w.conn.untracked {
		return
	}
	w.conn.known = true
	if c := w.packet.Conn; c != nil && c.Zone == w.conn.zone {
		w.conn.established, w.conn.judged, w.conn.reply, w.conn.mark, w.conn.original = true, true, c.Reply, c.Mark,
			c.Original
		if !c.Reply {
			w.conn.led = c.Led
		}
		return
	}
	w.conn.original = w.packet.Dest
}

// asksNAT reports whether a nat chain sees the packet: it sees a connection's first one, once.
func (w *walk) asksNAT(hook redirect.Hook, c hooked) bool {
	switch {
	case !w.rules.track(c.family):
		w.noteChain(hook, c, "nat is not asked: no rule of "+c.family.String()+" has connections tracked")
	case !w.conn.known:
		w.noteChain(hook, c, "nat is not asked: the packet belongs to no connection")
	case w.conn.judged:
		w.noteChain(hook, c, "nat is not asked again: it has judged the connection")
	default:
		return true
	}
	return false
}

// chain takes the packet through a chain's rules.
func (w *walk) chain(hook redirect.Hook, base hooked, name string, rules []Rule) verdict {
	for i, r := range rules {
		step := Step{Hook: hook, Kind: base.kind, Chain: name, Rule: i + 1, Why: r.Why, family: base.family, rule: r,
			foreign: base.table.Kind == "", words: w.rules.Iptables}
		for _, m := range r.Matches {
			if step.Missed == "" {
				step.Missed = w.missed(m)
			}
		}
		w.way.Steps = append(w.way.Steps, step)
		if step.Missed != "" {
			continue
		}
		switch v := w.apply(hook, base, r.Target); v {
		case next:
		case back:
			return next
		default:
			return v
		}
	}
	return next
}

// apply does what a rule says.
func (w *walk) apply(hook redirect.Hook, base hooked, target any) verdict {
	switch t := target.(type) {
	case redirect.Return:
		return back
	case redirect.Accept:
		return accepted
	case redirect.Drop:
		return dropped
	case redirect.Jump:
		for _, c := range base.table.Chains {
			if c.Name == string(t) {
				return w.chain(hook, base, c.Name, w.rulesOf(c))
			}
		}
		panic(fmt.Sprintf("trace: no chain %q", t))
	case redirect.RedirectTo:
		return w.translate(netip.AddrPortFrom(w.redirected(hook), uint16(t)))
	case TranslateTo:
		to := netip.AddrPort(t)
		if to.Port() == 0 {
			to = netip.AddrPortFrom(to.Addr(), w.packet.Dest.Port())
		}
		return w.translate(to)
	case redirect.TProxyTo:
		// An answer has a socket of its own, which is not transparent, and only such a one is taken: nft_tproxy_eval_v4 in
		// net/netfilter/nft_tproxy.c, tproxy_tg4 in xt_TPROXY.c.
		if w.pod.NoInbound || w.conn.reply && w.packet.Later {
			return dropped
		}
		w.taker, w.packet.Mark = t.Port, t.Mark
		return accepted
	}
	w.set(target)
	return next
}

// set does what a rule says that lets the packet go on.
func (w *walk) set(target any) {
	switch t := target.(type) {
	case redirect.SetMark:
		w.packet.Mark = uint32(t)
	case redirect.SaveMark:
		if w.conn.known {
			w.conn.mark = w.packet.Mark
		}
	case redirect.RestoreMark:
		if w.conn.known {
			w.packet.Mark = w.conn.mark
		}
	case redirect.SetZone: // the first one counts: nft_ct_set_zone_eval in net/netfilter/nft_ct.c
		if !w.conn.asked && !w.conn.zoned && (!w.conn.untracked || !w.rules.Iptables) { // iptables lets be what is untracked
			w.conn.zone, w.conn.zoned, w.conn.untracked = uint16(t), true, false
		}
	case Untrack: // not what has a zone: nft_notrack_eval, in the same file
		if !w.conn.asked && !w.conn.zoned {
			w.conn.untracked = true
		}
	default:
		panic(fmt.Sprintf("trace: no meaning of target %T", target))
	}
}

// leave ends the way outside.
func (w *walk) leave() {
	w.way.Landed, w.way.Link, w.way.Original = Outside, w.out, w.packet.Dest
}

// deliver ends the way at a socket of the pod.
func (w *walk) deliver() {
	port, spec := w.packet.Dest.Port(), w.rules.Spec
	w.way.Original = w.packet.Dest
	if w.taker != 0 {
		port = uint16(w.taker)
	} else if w.conn.known && !w.conn.reply {
		w.way.Original = w.conn.original
	}
	w.way.Landed = InPod
	switch {
	case w.conn.reply && w.taker == 0 || !w.packet.hasPorts():
	case w.packet.Proto == redirect.TCP && port == uint16(spec.InboundPort):
		w.way.Landed = Inbound
	case w.packet.Proto == redirect.TCP && port == uint16(spec.OutboundPort):
		w.way.Landed = Outbound
	case port == uint16(spec.DNSPort):
		w.way.Landed = DNS
	}
	w.way.sidecars = w.way.Landed == InPod && w.packet.Proto == redirect.TCP && slices.Contains(sidecarPorts, port)
	w.packet.Dest = netip.AddrPortFrom(w.packet.Dest.Addr(), port)
}

// sidecarPorts are those that the sidecar serves itself: tunnels, merged metrics, health, Envoy's metrics. Source:
// istio.io/latest/docs/ops/deployment/application-requirements.
var sidecarPorts = []uint16{15008, 15020, 15021, 15090}

// end returns the way.
func (w *walk) end() Way {
	way := w.way
	way.Dest, way.Mark, way.ConnMark, way.Zone = w.packet.Dest, w.packet.Mark, w.conn.mark, w.conn.zone
	way.Tracked, way.Answer, way.Taken = w.conn.known, w.conn.established, w.taker != 0
	if way.Landed == Dropped {
		way.Original = w.conn.original
	}
	way.decide()
	return way
}

// note adds a step that no rule makes.
func (w *walk) note(chain, what string) {
	w.way.Steps = append(w.way.Steps, Step{Chain: chain, Why: what})
}

// noteChain adds a step about a chain as a whole.
func (w *walk) noteChain(hook redirect.Hook, c hooked, what string) {
	w.way.Steps = append(w.way.Steps, Step{Hook: hook, Kind: c.kind, Chain: c.name, Why: what,
		foreign: c.table.Kind == "", words: w.rules.Iptables})
}

func (w *walk) destText() string { return addressText(w.packet.Dest) }

// addressText leaves out a port that there is not.
func addressText(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}

package netfilter

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/istio-pod-network/controller/plugin/trace"
	"github.com/istio-pod-network/controller/plugin/trace/tracetest"
)

// othersTable is the name of tables of others in the pod.
const othersTable = "others"

// others are base chains of others in the pod, in the form of package trace and in the syntax of nft(8).
type others struct {
	chains []trace.Foreign
	text   strings.Builder // the chains, table by table
}

// write writes them into the pod. remove removes them.
func (o *others) write(t *testing.T, lab *testnet.Lab) (remove func()) {
	t.Helper()
	shell(t, lab, "nft -f - <<'END'\n"+o.text.String()+"END\n")
	return func() { shell(t, lab, "nft delete table ip "+othersTable+"; nft delete table ip6 "+othersTable) }
}

// randomOthers draws up to five chains, each in both families. Their priorities differ from ours and from each other's:
// of two chains with the same priority the newer one runs first.
func randomOthers(random *rand.Rand) *others {
	o := &others{}
	texts := map[redirect.Family]*strings.Builder{redirect.IPv4: {}, redirect.IPv6: {}}
	for i := range 1 + random.IntN(5) {
		d := drawing{random, redirect.Filter, one(random, redirect.Prerouting, redirect.Input, redirect.Forward,
			redirect.Output), one(random, -350, -310, -250, -180, -170, -120, -60, 10, 100) + i}
		if (d.hook == redirect.Prerouting || d.hook == redirect.Output) && random.IntN(2) == 0 {
			d.kind, d.priority = redirect.NAT, one(random, -198, -140, -110, -90, 50)+i // after connection tracking
		}
		rules := make([]drawn, 1+random.IntN(4))
		for i := range rules {
			rules[i] = d.rule()
		}
		for family, text := range texts {
			chain := trace.Foreign{Name: fmt.Sprint("c", i), Kind: d.kind, Hook: d.hook, Family: family,
				Priority: d.priority}
			fmt.Fprintf(text, "\tchain %s {\n\t\ttype %s hook %s priority %d\n", chain.Name,
				map[redirect.Kind]string{redirect.NAT: "nat", redirect.Filter: "filter"}[d.kind], d.hook, d.priority)
			for _, r := range rules {
				rule, its := r.in(family)
				chain.Rules = append(chain.Rules, rule)
				fmt.Fprintf(text, "\t\t%s\n", its)
			}
			text.WriteString("\t}\n")
			o.chains = append(o.chains, chain)
		}
	}
	for _, family := range redirect.Families {
		fmt.Fprintf(&o.text, "table %s %s {\n%s}\n", family, othersTable, texts[family])
	}
	return o
}

// drawing draws the rules of one chain.
type drawing struct {
	*rand.Rand
	kind     redirect.Kind
	hook     redirect.Hook
	priority int
}

// drawn is a rule for both families, with places instead of addresses.
type drawn struct {
	matches  []redirect.Match
	target   any
	words    []string
	from, to testnet.Place
	led      testnet.Place // the place of a TranslateTo target
	port     uint16
}

// othersPorts are the ports in rules of others, out of those of the flows.
var othersPorts = []uint16{53, 80, 443, 7000, 8080, 8081, 9000, 9090, 15008, 15020, 15090}

func (d drawing) rule() (r drawn) {
	r.link(d)
	if d.hook == redirect.Output && d.IntN(4) == 0 {
		uid := redirect.ID(one(d.Rand, 0, 5000, 1337))
		r.add(redirect.SocketUID(uid), fmt.Sprint("meta skuid ", uid))
	}
	if d.IntN(4) == 0 {
		r.from = one(d.Rand, testnet.Pod, testnet.Peer, testnet.Self, testnet.Loopback, testnet.VM)
	}
	if d.IntN(3) == 0 {
		r.to = one(d.Rand, testnet.Pod, testnet.Self, testnet.Peer, testnet.Service, testnet.Outside, testnet.VM,
			testnet.Net1)
	}
	if d.kind == redirect.Filter && d.IntN(8) == 0 {
		r.add(redirect.Mark(7), "meta mark 7")
	}
	if d.kind == redirect.Filter && d.priority > -200 && d.IntN(8) == 0 {
		r.add(redirect.Established, "ct state established")
	}
	proto, word := redirect.TCP, "tcp"
	if d.IntN(3) == 0 {
		proto, word = redirect.UDP, "udp"
	}
	switch d.IntN(6) {
	case 0: // any protocol
		d.aim(&r, 0)
		return r
	case 1:
		first := one(d.Rand, othersPorts...)
		ports := redirect.PortRange{First: first, Last: first + uint16(d.IntN(1100))}
		r.add(proto, fmt.Sprintf("%s dport %d-%d", word, ports.First, ports.Last), redirect.DestPorts{ports})
	case 2:
		r.add(proto, "meta l4proto "+word)
	default:
		port := one(d.Rand, othersPorts...)
		r.add(proto, fmt.Sprintf("%s dport %d", word, port), redirect.DestPorts{{First: port, Last: port}})
	}
	d.aim(&r, proto)
	return r
}

// link limits a rule to interfaces. A rule for incoming packets translates to a place behind another interface: nobody
// sends packets back to where they came from.
func (r *drawn) link(d drawing) {
	in, out := d.hook != redirect.Output, d.hook == redirect.Output || d.hook == redirect.Forward
	if d.kind == redirect.NAT && in || in && d.IntN(3) == 0 {
		name := one(d.Rand, "eth0", "net1", "eth0", "net1", "lo")
		r.add(redirect.InInterface{name}, "iifname "+name)
		r.led = map[string]testnet.Place{"eth0": one(d.Rand, testnet.VM, testnet.Pod, testnet.Self),
			"net1": one(d.Rand, testnet.Peer, testnet.Outside, testnet.Pod, testnet.Self), "lo": testnet.Pod}[name]
		return
	}
	if out && d.IntN(3) == 0 {
		name := one(d.Rand, "eth0", "net1", "lo")
		r.add(redirect.OutInterface{name}, "oifname "+name)
	}
	r.led = one(d.Rand, testnet.Peer, testnet.Outside, testnet.VM, testnet.Pod, testnet.Self)
}

func (r *drawn) add(match redirect.Match, words string, more ...redirect.Match) {
	r.matches, r.words = append(append(r.matches, match), more...), append(r.words, words)
}

// aim gives the rule its target. proto 0 means any protocol.
func (d drawing) aim(r *drawn, proto redirect.Proto) {
	port := one(d.Rand, uint16(8080), 8081, 9090, 7000, 80, 443)
	if proto == redirect.UDP {
		port = one(d.Rand, testnet.UDPPorts...)
	}
	if d.kind == redirect.NAT {
		switch n := d.IntN(8); {
		case n == 0:
			r.aimAt(redirect.Accept{}, "accept")
		case n == 1:
			r.aimAt(redirect.Drop{}, "drop")
		case n < 5 && proto != 0:
			r.aimAt(redirect.RedirectTo(port), fmt.Sprint("redirect to :", port))
		default:
			if proto != 0 && d.IntN(3) > 0 {
				r.port = port
			}
			r.aimAt(trace.TranslateTo{}, "dnat to ")
		}
		return
	}
	switch n := d.IntN(8); {
	case n < 2:
		r.aimAt(redirect.Accept{}, "accept")
	case n < 4:
		r.aimAt(redirect.SetMark(7), "meta mark set 7")
	case n == 4:
		r.aimAt(redirect.Return{}, "return")
	case n < 7 && d.priority < -200 && d.hook != redirect.Input && d.hook != redirect.Forward:
		r.aimAt(trace.Untrack{}, "notrack")
	case proto != 0 || r.to != testnet.Anywhere:
		r.aimAt(redirect.Drop{}, "drop")
	default:
		r.aimAt(redirect.Accept{}, "accept")
	}
}

func (r *drawn) aimAt(target any, words string) { r.target, r.words = target, append(r.words, words) }

// in returns the rule for one family.
func (r drawn) in(family redirect.Family) (trace.Rule, string) {
	rule := trace.Rule{Matches: slices.Clone(r.matches), Target: r.target, Why: "of others"}
	words := slices.Clone(r.words)
	address := func(p testnet.Place) netip.Addr { return p.Addr(testnet.Family(family)) }
	prefixes := func(p testnet.Place) []netip.Prefix {
		return []netip.Prefix{netip.PrefixFrom(address(p), address(p).BitLen())}
	}
	if r.from != testnet.Anywhere {
		rule.Matches = append(rule.Matches, redirect.From(prefixes(r.from)))
		words = append([]string{fmt.Sprintf("%s saddr %s", family, address(r.from))}, words...)
	}
	if r.to != testnet.Anywhere {
		rule.Matches = append(rule.Matches, redirect.To(prefixes(r.to)))
		words = append([]string{fmt.Sprintf("%s daddr %s", family, address(r.to))}, words...)
	}
	if _, is := r.target.(trace.TranslateTo); is {
		rule.Target = trace.TranslateTo(netip.AddrPortFrom(address(r.led), r.port))
		to := address(r.led).String()
		if r.port != 0 {
			to = netip.AddrPortFrom(address(r.led), r.port).String()
		}
		words[len(words)-1] += to
	}
	return rule, strings.Join(words, " ")
}

func one[T any](random *rand.Rand, items ...T) T { return items[random.IntN(len(items))] }

// ordinary returns the flows whose packets package trace can predict with chains of others.
func ordinary(flows []testnet.Flow) []testnet.Flow {
	return slices.DeleteFunc(slices.Clone(flows), func(f testnet.Flow) bool { return f.Kind != testnet.Plain })
}

// wrongBesideOthers are wrong walks that no kernel makes, with chains of others in the pod.
var wrongBesideOthers = []tracetest.WrongStep{
	{What: "others come last", File: "walk.go", Right: "place: f.Priority,", Wrong: "place: f.Priority + 1000,"},
	{What: "what is accepted is asked no more", File: "walk.go", Right: "\t\tdefault:\n\t\t}\n\t}\n\tw.track()",
		Wrong: "\t\tcase accepted:\n\t\t\tw.track()\n\t\t\treturn next\n\t\tdefault:\n\t\t}\n\t}\n\tw.track()"},
	{What: "connection tracking is kept from nothing", File: "walk.go", Right: "w.conn.untracked = true",
		Wrong: "w.conn.untracked = false"},
	{What: "a translation keeps the port", File: "walk.go", Right: "if to.Port() == 0 {", Wrong: "if true {"},
	{What: "nobody judges what is forwarded", File: "walk.go", Right: "w.hook(redirect.Forward) != dropped",
		Wrong: "true"},
	{What: "what follows is not translated", File: "nat.go", Right: "w.packet.Dest = w.conn.led", Wrong: "return"},
}

// rarelyWrong are wrong walks that most packets do not show. The key is a seed of packets that do.
var rarelyWrong = map[string]tracetest.WrongStep{
	"SEED=211046642": {What: "connections are tracked without a reason", File: "walk.go",
		Right: "case !w.rules.track(c.family):", Wrong: "case false:"},
}

// TestWrongStepsBesideOthers makes the walk wrong at one step after the other. Real packets must show each of them,
// because no model covers chains of others.
func TestWrongStepsBesideOthers(t *testing.T) {
	for _, step := range wrongBesideOthers {
		t.Run(step.What, func(t *testing.T) {
			step.IsFound(t, "../trace", "TestRandomTraffic", "PACKETS=3000", "SEED=1000")
		})
	}
	for seed, step := range rarelyWrong {
		t.Run(step.What, func(t *testing.T) { step.IsFound(t, "../trace", "TestRandomTraffic", "PACKETS=1", seed) })
	}
}

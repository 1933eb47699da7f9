package netfilter

import (
	"fmt"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// taint is a manual change of our rules.
type taint struct {
	name, script string
	want         string // a part of Check's error, which names what was changed
}

// Changes of profile tproxy-exclude-interfaces, which has an anonymous set, marks and policy routes. The function
// handle prints the handle of the first rule in a chain that contains a text.
const handle = `handle() { nft -a list chain $1 istio-pod-network $2 | grep -F -- "$3" | head -1 | sed 's/.*# ` +
	`handle //'; };`

var nftTaints = []taint{
	{"rule deleted", handle + `nft delete rule ip istio-pod-network nat-istio-output handle $(handle ip ` +
		`nat-istio-output "skgid 1337 return")`,
		"ip chain nat-istio-output: missing rule 6, `meta skgid 1337 return`"},
	{"rule deleted, IPv6", handle +
		`nft delete rule ip6 istio-pod-network mangle-istio-tproxy handle $(handle ip6 mangle-istio-tproxy drop)`,
		"ip6 chain mangle-istio-tproxy: missing rule 2, `meta l4proto tcp ip6 daddr != ::1/128 drop`"},
	{"rule added", `nft add rule ip istio-pod-network nat-istio-output tcp dport 81 return`,
		"ip chain nat-istio-output: unexpected entry at position"},
	{"rule inserted", `nft insert rule ip istio-pod-network nat-istio-output counter accept`,
		"ip chain nat-istio-output: unexpected entry at position 1"},
	{"rule changed", handle + `nft replace rule ip istio-pod-network nat-istio-redirect handle $(handle ip ` +
		`nat-istio-redirect :15001) tcp dport 1 redirect to :15001`,
		"ip chain nat-istio-redirect: missing rule 1, `meta l4proto tcp redirect to :15001`"},
	{"rules in another order", handle + `h=$(handle ip nat-istio-output "skgid 1337 return")
		nft delete rule ip istio-pod-network nat-istio-output handle $h
		nft add rule ip istio-pod-network nat-istio-output meta skgid 1337 return`,
		"ip chain nat-istio-output: the order was changed"},
	{"chain flushed", `nft flush chain ip6 istio-pod-network nat-istio-output`,
		"ip6 chain nat-istio-output: missing rule 1, `oifname { \"net*\", \"tap7\" } return`"},
	{"chain added", `nft add chain ip istio-pod-network extra '{ type filter hook input priority 0; }'`,
		"unexpected ip chain extra"},
	{"chain deleted", `nft delete chain ip istio-pod-network nat-istio-inbound`, "missing ip chain nat-istio-inbound"},
	{"chain with policy drop", `nft add chain ip istio-pod-network mangle-istio-output '{ policy drop; }'`,
		"ip chain mangle-istio-output: its definition was changed"},
	{"table flushed", `nft flush table ip istio-pod-network`,
		"ip chain mangle-istio-divert: missing rule 1, `meta mark set 1337`"},
	{"table deleted", `nft delete table ip6 istio-pod-network`, "missing ip6 table"},
	{"all flushed", `nft flush ruleset`, "missing ip table; missing ip6 table"},
	{"table dormant", `nft add table ip istio-pod-network '{ flags dormant; }'`, "ip table: its definition was changed"},
}

// $ipt is the program of the backend and the family.
var iptablesTaints = []taint{
	{"rule deleted", `$ipt -t nat -D ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN`,
		"table nat chain ISTIO_OUTPUT: missing rule 7, `-A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN`"},
	{"rule added", `$ipt -t nat -A ISTIO_OUTPUT -p tcp --dport 81 -j RETURN`,
		"table nat chain ISTIO_OUTPUT: unexpected entry at position"},
	{"rule inserted", `$ipt -t nat -I ISTIO_OUTPUT -j RETURN`,
		"table nat chain ISTIO_OUTPUT: unexpected entry at position 1"},
	{"rule changed", `$ipt -t nat -R ISTIO_REDIRECT 1 -p tcp -j REDIRECT --to-ports 15002`,
		"table nat chain ISTIO_REDIRECT: missing rule 1, `-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001`"},
	{"rules in another order", `$ipt -t nat -D ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN; $ipt -t nat -A ` +
		`ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN`,
		"table nat chain ISTIO_OUTPUT: the order was changed"},
	{"chain flushed", `$ipt -t mangle -F ISTIO_DIVERT`, "table mangle chain ISTIO_DIVERT: missing rule 1"},
	{"chain added", `$ipt -t nat -N ISTIO_EXTRA`, "unexpected"},
	{"jump deleted", `$ipt -t nat -D OUTPUT -j ISTIO_OUTPUT`, "table nat chain OUTPUT"},
	{"jump inserted again", `$ipt -t nat -I PREROUTING -j ISTIO_INBOUND`, "table nat chain PREROUTING: unexpected entry"},
	{"jump by goto", `$ipt -t nat -A OUTPUT -g ISTIO_OUTPUT`, "table nat chain OUTPUT: unexpected entry"},
	{"jump from a chain of somebody else", `$ipt -t nat -N OTHER; $ipt -t nat -A OTHER -g ISTIO_OUTPUT`,
		"table nat chain OTHER"},
	{"rule before the jump, mangle", `$ipt -t mangle -I PREROUTING -p tcp --dport 81 -j ACCEPT`,
		"table mangle chain PREROUTING: unexpected entry at position 1, " +
			"`-A PREROUTING -p tcp -m tcp --dport 81 -j ACCEPT`"},
	{"rule before the jump, nat", `$ipt -t nat -A OUTPUT -p udp -j ACCEPT; $ipt -t nat -I OUTPUT -p udp -j RETURN`,
		"table nat chain OUTPUT: unexpected entry at position 1, `-A OUTPUT -p udp -j RETURN`"},
	{"table flushed", `$ipt -t mangle -F`, "table mangle chain ISTIO_INBOUND: missing rule 1"},
	{"all flushed", `for t in raw mangle filter nat; do $ipt -t $t -F; $ipt -t $t -X; done`, "missing"},
}

// Changes of rules with sets that are so large that they have names.
var setTaints = []taint{
	{"set element removed", `nft delete element ip istio-pod-network $set '{ 10.0.4.0/24 }'`, "missing entry"},
	{"set element added", `nft add element ip istio-pod-network $set '{ 10.5.1.0/24 }'`, "unexpected entry"},
	{"set flushed", `nft flush set ip istio-pod-network $set`, "missing entry"},
}

var routeTaints = []taint{
	{"address deleted", `ip -6 address del ::6/128 dev lo`, "missing address ::6/128 dev lo"},
	{"rule deleted", `ip rule del fwmark 1337 lookup 133`, "missing ip rule fwmark 1337 lookup 133"},
	{"IPv6 rule deleted", `ip -6 rule del fwmark 1337 lookup 133`, "missing ip6 rule fwmark 1337 lookup 133"},
	{"route deleted", `ip route flush table 133`, "missing ip route local default dev lo table 133"},
	{"IPv6 route deleted", `ip -6 route flush table 133`, "missing ip6 route local default dev lo table 133"},
	{"lo down", `ip link set lo down`, "missing link lo up"},
}

func (x taint) try(t *testing.T, backend Backend, rules redirect.RuleSet) {
	lab, n := newLab(t, testnet.Options{})
	applied := mustApply(t, n, backend, rules)
	shell(t, lab, x.script)
	err := n.Check(applied, rules)
	if !IsDrift(err) || !strings.Contains(err.Error(), x.want) {
		t.Errorf("Check says %v\nand not %s", err, x.want)
	}
	if _, err := n.Apply(backend, rules); err != nil {
		t.Fatal(err)
	}
	if err := n.Check(applied, rules); err != nil {
		t.Errorf("after writing again: %v", err)
	}
	if err := n.Remove(applied); err != nil {
		t.Error(err)
	}
	if left := packetRules(t, lab); strings.Contains(left, istioPrefix) || strings.Contains(left, redirect.TableName) {
		t.Errorf("after Remove: %s", left)
	}
}

// TestDrift changes the rules manually, expects Check to name the change, and writes the rules again.
func TestDrift(t *testing.T) {
	rules := named(t, "tproxy-exclude-interfaces")
	for _, x := range append(nftTaints, routeTaints...) {
		t.Run("nftables/"+x.name, func(t *testing.T) {
			x.try(t, Nftables, rules)
		})
	}
	for _, x := range setTaints {
		x.script = "set=$(nft list sets ip | awk '$1 == \"set\" {s = $2} /type ipv4_addr/ {print s; exit}')\n" + x.script
		t.Run("nftables/"+x.name, func(t *testing.T) {
			x.try(t, Nftables, ruleSet(t, large(100, 100)))
		})
	}
	for _, backend := range []Backend{IptablesNFT, IptablesLegacy} {
		for i, x := range iptablesTaints {
			family := []string{"ip", "ip6"}[i%2] // both families use the same code, so each taint tries one
			x.script = fmt.Sprintf("ipt=%stables%s\n", family, strings.TrimPrefix(string(backend), "iptables")) + x.script
			t.Run(fmt.Sprintf("%s/%s", backend, x.name), func(t *testing.T) {
				t.Parallel()
				x.try(t, backend, rules)
			})
		}
	}
}

package netfilter

import (
	"fmt"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// outlined is Check's text about a table that iptables-nft cannot list.
const outlined = "only the names of its chains and the jumps to them could be compared"

// natives are changes that somebody makes with nft(8) to the tables of iptables-nft, followed by changes with
// iptables-nft's own programs. $ip is the family.
var natives = []struct {
	name, script string
	want         []string // parts of Check's error; $ipt is the name of the program
	never        string   // what the error must not contain
	stays        string   // rules of others that Remove must keep
}{
	{"rule in our chain", `nft add rule $ip nat ISTIO_OUTPUT ct state established accept`, []string{
		"$ipt table nat holds rules that iptables-nft cannot list (`nft list table $ip nat` does): " + outlined,
	}, "missing", ""},
	{"rule in every table", `for t in raw:ISTIO_OUTPUT_DNS mangle:ISTIO_TPROXY nat:ISTIO_REDIRECT; do
			nft insert rule $ip ${t%:*} ${t#*:} ct state established counter
		done`, []string{
		"$ipt table raw holds", "$ipt table mangle holds", "$ipt table nat holds",
	}, "missing", ""},
	{"rule in a built-in chain", `nft insert rule $ip nat OUTPUT ct state established counter`, []string{
		"$ipt table nat holds", outlined, "$ipt table nat chain OUTPUT: unexpected entry at position 1",
	}, "missing", "ct state established counter"},
	{"rule with a set in place of ours", handleOf + `
		nft replace rule $ip nat ISTIO_OUTPUT handle $(handle $ip nat ISTIO_OUTPUT 'jump ISTIO_REDIRECT') \
			meta l4proto tcp tcp dport '{ 80, 90 }' counter jump ISTIO_REDIRECT`, []string{
		"$ipt table nat holds", outlined,
	}, "missing", ""},
	{"another jump", `nft insert rule $ip nat OUTPUT ct state established jump ISTIO_OUTPUT`, []string{
		"$ipt table nat holds", "$ipt table nat chain OUTPUT: unexpected entry at position",
	}, "missing", ""},
	{"jump from a chain of somebody else", `nft add chain $ip nat OTHER
		nft add rule $ip nat OTHER ct state established goto ISTIO_OUTPUT`, []string{
		"$ipt table nat holds", "$ipt table nat chain OTHER",
	}, "missing", "chain OTHER"},
	{"and the jump deleted", handleOf + `nft add rule $ip nat ISTIO_OUTPUT ct state established accept
		nft delete rule $ip nat OUTPUT handle $(handle $ip nat OUTPUT 'jump ISTIO_OUTPUT')`, []string{
		"$ipt table nat holds", "$ipt table nat chain OUTPUT",
	}, "chain ISTIO_OUTPUT", ""},
	{"and a jump between our chains deleted", handleOf + `nft add rule $ip nat ISTIO_OUTPUT ct state established accept
		nft delete rule $ip nat ISTIO_OUTPUT handle $(handle $ip nat ISTIO_OUTPUT 'jump ISTIO_REDIRECT')`, []string{
		"$ipt table nat holds", "$ipt table nat chain ISTIO_OUTPUT: missing rule", "`-A ISTIO_OUTPUT -j ISTIO_REDIRECT`",
	}, "chain OUTPUT", ""},
	{"and a chain renamed", `nft add rule $ip nat ISTIO_OUTPUT ct state established accept
		nft rename chain $ip nat ISTIO_REDIRECT ISTIO_MINE`, []string{
		"$ipt table nat holds", "missing $ipt table nat chain ISTIO_REDIRECT", "unexpected $ipt table nat chain ISTIO_MINE",
	}, "chain OUTPUT", ""},
	{"dormant table", `nft add table $ip nat '{ flags dormant; }'`, []string{
		"$ipt table nat is dormant: its rules are not in force",
	}, outlined, ""},
	{"jump by goto", `$ipt-nft -t nat -A OUTPUT -g ISTIO_OUTPUT`, []string{
		"$ipt table nat chain OUTPUT: unexpected entry at position",
	}, outlined, ""},
}

// handleOf prints the handle of the first rule in a chain that contains a text.
const handleOf = `handle() { nft -a list chain $1 $2 $3 | grep -F -- "$4" | head -1 | sed 's/.*# handle //'; };`

// TestNative adds rules with nft(8) to the tables of iptables-nft, whose programs then list nothing of the table and
// exit with 0. Check must not report everything as missing, a new ADD replaces our rules, and DEL removes them.
func TestNative(t *testing.T) {
	rules := named(t, "tproxy-dns")
	for _, x := range natives {
		for _, family := range redirect.Families {
			t.Run(fmt.Sprintf("%s/%s", x.name, family), func(t *testing.T) {
				t.Parallel()
				lab, n := newLab(t, testnet.Options{})
				names := strings.NewReplacer("$ipt", iptablesName(family), "$ip", family.String())
				applied := mustApply(t, n, IptablesNFT, rules)
				shell(t, lab, names.Replace(x.script))
				says(t, n.Check(applied, rules), names, x.want, x.never)
				again := apply(t, n, IptablesNFT, rules)
				if err := n.Check(applied, rules); (err != nil) != (strings.HasPrefix(x.stays, "ct ") && x.want != nil) {
					t.Errorf("after writing again: %v", err)
				}
				applied.Created = append(applied.Created, again.Created...)
				if err := n.Remove(applied); err != nil {
					t.Error(err)
				}
				left := packetRules(t, lab)
				if strings.Contains(left, istioPrefix) || !strings.Contains(left, x.stays) {
					t.Errorf("left: %s", left)
				}
			})
		}
	}
}

// TestNativeElsewhere adds such a rule to a table without rules of ours, before and after ADD.
func TestNativeElsewhere(t *testing.T) {
	lab, n := newLab(t, testnet.Options{})
	rules := named(t, "default")
	for _, table := range []string{"raw", "mangle"} {
		shell(t, lab, strings.ReplaceAll(
			`iptables-nft -t TABLE -A OUTPUT; nft insert rule ip TABLE OUTPUT ct state established counter`, "TABLE", table))
		applied := mustApply(t, n, IptablesNFT, rules)
		if err := n.Check(applied, rules); err != nil {
			t.Error(err)
		}
	}
}

// says checks that Check's error has the wanted texts, and not the other one.
func says(t *testing.T, err error, names *strings.Replacer, want []string, never string) {
	t.Helper()
	if err == nil {
		if want != nil {
			t.Error("Check finds nothing")
		}
		return
	}
	for _, part := range want {
		if !IsDrift(err) || !strings.Contains(err.Error(), names.Replace(part)) {
			t.Errorf("Check says %v\nand not %s", err, names.Replace(part))
		}
	}
	if want == nil || never != "" && strings.Contains(err.Error(), never) {
		t.Errorf("Check says %v", err)
	}
}

package netfilter

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// anyRules is what is checked if the settings cannot be read.
func anyRules(families ...redirect.Family) (rules redirect.RuleSet) {
	for _, family := range families {
		rules.Tables = append(rules.Tables, redirect.Table{Family: family, Kind: redirect.NAT})
	}
	return rules
}

// CheckOutline accepts what this release writes, for every profile: a rollback relies on it.
func TestOutline(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend Backend) {
		profiles := slices.Concat(testnet.Profiles, testnet.FamilyProfiles)
		_, n := newLab(t, testnet.Options{})
		for _, profile := range profiles {
			if backend != Nftables && !slices.Contains(some, profile.Name) {
				continue // they have the chains of nftables
			}
			rules := ruleSet(t, profile)
			applied := apply(t, n, backend, rules)
			for _, rules := range []redirect.RuleSet{rules, {}} {
				if err := n.CheckOutline(applied, rules); err != nil {
					t.Errorf("%s: %v", profile.Name, err)
				}
			}
			if err := n.CheckOutline(Applied{}, redirect.RuleSet{}); err != nil {
				t.Errorf("%s: %v", profile.Name, err)
			}
		}
		await.Must(t, n.Remove(Applied{}))
		for _, applied := range []Applied{{Backend: backend}, {}} {
			if err := n.CheckOutline(applied, anyRules(redirect.Families...)); !IsDrift(err) {
				t.Errorf("by %q, without any: %v", applied.Backend, err)
			}
		}
	})
}

// What ADD has skipped is not reported: a family without programs, or that the kernel lacks.
func TestOutlineSkipped(t *testing.T) {
	rules := named(t, "tproxy")
	for _, backend := range backends {
		_, n := newLab(t, testnet.Options{Families: []testnet.Family{testnet.IPv4}, NoIPv6: true})
		if backend != Nftables {
			onHostWith(t, no6)
		}
		applied := apply(t, n, backend, rules)
		if err := n.CheckOutline(applied, rules); err != nil || len(applied.Skipped) == 0 {
			t.Errorf("%s: %v, skipped %v", backend, err, applied.Skipped)
		}
		onThisHost(t)
	}
}

// outlineTaints are changes that break a pod's redirection with the rules of any release. In scripts for iptables $ipt
// is the program.
var outlineTaints = map[bool][]taint{
	true: { // with nftables
		{"table deleted", `nft delete table ip istio-pod-network`, "missing nat rules of ip"},
		{"IPv6 table deleted", `nft delete table ip6 istio-pod-network`, "missing nat rules of ip6"},
		{"all flushed", `nft flush ruleset`, "missing nat rules of ip;"},
		{"base chain flushed", `nft flush chain ip istio-pod-network nat-istio-output`, "OUTPUT leads to no nat rules of ip"},
		{"base chain deleted", `nft flush chain ip6 istio-pod-network mangle-istio-inbound
			nft delete chain ip6 istio-pod-network mangle-istio-inbound`, "PREROUTING leads to no mangle rules of ip6"},
		{"jump deleted", handle + `nft delete rule ip istio-pod-network nat-istio-output handle $(handle ip ` +
			`nat-istio-output "jump nat-istio-redirect")`, "nothing leads to nat chain nat-istio-redirect of ip"},
		{"dormant", `nft add table ip istio-pod-network '{ flags dormant; }'`, "nat rules of ip are dormant"},
	},
	false: {
		{"jump deleted", `$ipt -t nat -D OUTPUT -j ISTIO_OUTPUT`, "OUTPUT leads to no nat rules of ip"},
		{"jump deleted, mangle", `$ipt -t mangle -D PREROUTING -j ISTIO_INBOUND`,
			"PREROUTING leads to no mangle rules of ip"},
		{"jump between chains deleted", `$ipt -t nat -D ISTIO_OUTPUT -p tcp -j ISTIO_REDIRECT`,
			"nothing leads to nat chain ISTIO_REDIRECT of ip"},
		{"table flushed", `$ipt -t nat -F`, "OUTPUT leads to no nat rules of ip"},
		{"chains deleted", `$ipt -t mangle -F; $ipt -t mangle -X`, "missing mangle rules of ip"},
		{"marker deleted", `$ipt -t nat -X ISTIO_POD_NETWORK`, "missing nat rules of ip"},
	},
}

// TestOutlineOfBefore compares rules of an earlier release with this one's. Check finds differences; CheckOutline finds
// none, until something is removed.
func TestOutlineOfBefore(t *testing.T) {
	eachOlder(t, func(t *testing.T, backend Backend, lab *testnet.Lab, n *NetNS, profile testnet.Profile) {
		rules, applied := ruleSet(t, profile), Applied{Backend: backend}
		if err := n.Check(applied, rules); !IsDrift(err) {
			t.Errorf("Check says %v of the rules of before", err)
		}
		await.Must(t, n.CheckOutline(applied, rules))
		await.Must(t, n.CheckOutline(applied, anyRules(redirect.Families...)))
		await.Must(t, n.CheckOutline(Applied{}, redirect.RuleSet{}))
		if profile.Name != "tproxy" {
			return // profile tproxy has the most chains
		}
		for i, x := range outlineTaints[backend == Nftables] {
			family := []string{"ip", "ip6"}[i%2]
			shell(t, lab, fmt.Sprintf("ipt=%stables%s\n%s", family, strings.TrimPrefix(string(backend), "iptables"), x.script))
			if backend != Nftables {
				x.want = strings.ReplaceAll(x.want, " of ip", " of "+family)
			}
			if err := n.CheckOutline(applied, rules); !IsDrift(err) || !strings.Contains(err.Error(), x.want) {
				t.Errorf("%s: CheckOutline says %v\nand not %s", x.name, err, x.want)
			}
			applyBefore(t, lab, backend, profile.Name)
			await.Must(t, n.CheckOutline(applied, rules))
		}
	})
}

// What the record names as created must be there, if this release needs it too.
func TestOutlineOfRoutes(t *testing.T) {
	rules := named(t, "tproxy")
	for _, x := range routeTaints {
		lab, n := newLab(t, testnet.Options{})
		applied := apply(t, n, Nftables, rules)
		shell(t, lab, x.script)
		made := slices.Contains(applied.Created, strings.TrimPrefix(x.want, "missing ")) // the state of lo is not among them
		if err := n.CheckOutline(applied, rules); made && (!IsDrift(err) || !strings.Contains(err.Error(), x.want)) {
			t.Errorf("%s: %v", x.name, err)
		}
		if err := n.CheckOutline(Applied{Backend: Nftables}, rules); err != nil {
			t.Errorf("%s, made by nobody: %v", x.name, err)
		}
	}
}

// For iptables-nft CheckOutline runs no program, and rules that nft(8) has added hide nothing.
func TestOutlineRunsNoProgram(t *testing.T) {
	rules := named(t, "default")
	lab, n := newLab(t, testnet.Options{})
	applied := apply(t, n, IptablesNFT, rules)
	shell(t, lab, `nft add rule ip nat OUTPUT tcp dport { 81, 82 } accept`)
	onHostWith(t, func(string) bool { return false })
	if err := n.CheckOutline(applied, rules); err != nil {
		t.Error(err)
	}
	onThisHost(t)
	shell(t, lab, `nft add table ip nat '{ flags dormant; }'`)
	err := n.CheckOutline(applied, rules)
	if !IsDrift(err) || !strings.Contains(err.Error(), "nat rules of ip are dormant") {
		t.Errorf("of a table that is not in force: %v", err)
	}
}

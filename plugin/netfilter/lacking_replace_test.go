package netfilter

import (
	"fmt"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// TestReplaceLacking replaces rules on kernels that no longer support the backend of the old ones. Another backend
// writes the new rules and the old ones are removed, or the old ones stay unchanged.
func TestReplaceLacking(t *testing.T) {
	for _, c := range []struct {
		lacks string
		by    Backend
		want  Backend
	}{
		{"nft_tproxy", Nftables, IptablesNFT},
		{"nft_chain_nat", Nftables, IptablesLegacy},
		{"nft_chain_nat ip_tables", Nftables, ""},
		{"nft_compat nft_tproxy", IptablesNFT, IptablesLegacy},
	} {
		for name, put := range map[string]func(*NetNS, Backend, redirect.RuleSet) (Applied, error){
			"Replace": (*NetNS).Replace, "Apply": (*NetNS).Apply,
		} {
			t.Run(name+"/"+c.lacks, func(t *testing.T) {
				lab, n := newLab(t, testnet.Options{})
				earlier := apply(t, n, c.by, named(t, "default"))
				profile, _ := testnet.ProfileNamed("tproxy-dns")
				rules, before := ruleSet(t, profile), everything(t, lab)
				restore := lacking(t, strings.Fields(c.lacks)...)
				applied, err := put(n, Auto, rules)
				restore()
				if c.want == "" {
					if !IsUnusable(err) {
						t.Errorf("%+v, %v", applied, err)
					}
					compareText(t, used(everything(t, lab)), used(before))
					return
				}
				if err != nil || applied.Backend != c.want {
					t.Fatalf("%+v, %v", applied, err)
				}
				renewed(t, lab, n, profile, applied)
				applied.Created = append(applied.Created, earlier.Created...)
				await.Must(t, n.Remove(applied))
			})
		}
	}
}

// renewed checks that the pod has exactly these rules, and that every flow lands where it should.
func renewed(t *testing.T, lab *testnet.Lab, n *NetNS, profile testnet.Profile, applied Applied) {
	t.Helper()
	rules := ruleSet(t, profile)
	fresh, m := newLab(t, testnet.Options{})
	apply(t, m, applied.Backend, rules)
	compareText(t, used(packetRules(t, lab)), used(packetRules(t, fresh)))
	await.Must(t, n.Check(applied, rules))
	await.Must(t, lab.Use(profile))
	for _, result := range lab.Check() {
		t.Error(result)
	}
}

// TestReplaceUnfinished has the old rules' backend fail between two tables, when some are already new. The other
// backend then writes all rules and nothing of the first is left. If there is no other backend, everything stays.
func TestReplaceUnfinished(t *testing.T) {
	for _, other := range []bool{true, false} {
		t.Run(fmt.Sprintf("another way: %t", other), func(t *testing.T) {
			lab, n := newLab(t, testnet.Options{})
			apply(t, n, IptablesLegacy, named(t, "default"))
			profile, _ := testnet.ProfileNamed("tproxy-dns")
			if other {
				withBroken(t)
			} else {
				withBroken(t, bothBroken(IptablesNFT, "raw")...)
			}
			scripted(t, "ip6tables-legacy-restore", `input=$(cat)
				case $input in
				*'-A ISTIO'*) echo "$input" | sed '/^\*nat/,$d' | "$real" "$@"; echo broken >&2; exit 1 ;;
				esac
				echo "$input" | "$real" "$@"`)
			applied, err := n.Replace(Iptables, ruleSet(t, profile))
			onThisHost(t)
			if other {
				if err != nil || applied.Backend != IptablesNFT {
					t.Fatalf("%+v, %v", applied, err)
				}
				renewed(t, lab, n, profile, applied)
				return
			}
			if !IsUnusable(err) {
				t.Fatalf("%+v, %v", applied, err)
			}
			for _, family := range redirect.Families {
				saved := shell(t, lab, iptablesName(family)+"-legacy-save")
				for _, rule := range []string{"-A OUTPUT -j ISTIO_OUTPUT", "-j REDIRECT --to-ports 15001"} {
					if !strings.Contains(saved, rule) {
						t.Errorf("%s has lost %s:\n%s", family, rule, saved)
					}
				}
				if rules := shell(t, lab, iptablesName(family)+"-nft-save"); strings.Contains(rules, istioPrefix) {
					t.Errorf("left of %s:\n%s", family, rules)
				}
			}
		})
	}
}

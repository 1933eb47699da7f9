package netfilter

import (
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

var backends = []Backend{Nftables, IptablesNFT, IptablesLegacy}

func newLab(t *testing.T, options testnet.Options) (*testnet.Lab, *NetNS) {
	t.Helper()
	lab, err := testnet.New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = lab.Close() })
	n, err := Open(lab.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return lab, n
}

func ruleSet(t *testing.T, profile testnet.Profile) redirect.RuleSet {
	t.Helper()
	spec, err := redirect.ParseSpec(profile.JSON())
	if err != nil {
		t.Fatal(err)
	}
	return spec.ForAddresses(redirect.Families).RuleSet()
}

// TestTraffic sends every flow of every profile and checks where it lands. It also uses pods with a single family, and
// a pod whose sidecar is not root in TPROXY mode; both have the profiles that the others vary.
func TestTraffic(t *testing.T) {
	pods := []struct {
		name     string
		options  testnet.Options
		profiles []testnet.Profile
	}{
		{"dual stack", testnet.Options{}, testnet.Profiles},
		{"IPv4", testnet.Options{Families: []testnet.Family{testnet.IPv4}}, testnet.BaseProfiles},
		{"IPv6", testnet.Options{Families: []testnet.Family{testnet.IPv6}}, testnet.BaseProfiles},
		{"a sidecar of its own user", testnet.Options{OwnUser: true}, testnet.BaseProfiles},
	}
	for _, backend := range backends {
		t.Run(string(backend), func(t *testing.T) {
			t.Parallel()
			for _, pod := range pods {
				t.Run(pod.name, func(t *testing.T) {
					lab, n := newLab(t, pod.options)
					for _, profile := range pod.profiles {
						t.Run(profile.Name, func(t *testing.T) { lands(t, lab, n, backend, profile) })
					}
				})
			}
			t.Run("one family of a dual stack", func(t *testing.T) {
				lab, n := newLab(t, testnet.Options{})
				// One after the other: the rules of a family are removed, and written again.
				for _, profile := range append(testnet.FamilyProfiles, testnet.BaseProfiles[0]) {
					t.Run(profile.Name, func(t *testing.T) { lands(t, lab, n, backend, profile) })
				}
			})
		})
	}
}

// lands applies the profile's rules and checks where its flows land.
func lands(t *testing.T, lab *testnet.Lab, n *NetNS, backend Backend, profile testnet.Profile) {
	t.Helper()
	lab.Use(profile)
	rules := ruleSet(t, profile)
	applied, err := n.Apply(backend, rules)
	if err != nil {
		t.Fatal(err)
	}
	if err := lab.Reset(); err != nil {
		t.Fatal(err)
	}
	for _, result := range lab.Check() {
		t.Error(result)
	}
	if err := n.Check(applied, rules); err != nil {
		t.Error(err)
	}
}

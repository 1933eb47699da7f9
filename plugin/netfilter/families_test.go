package netfilter

import (
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// Families follow from the addresses of the interfaces, without lo and without link-local addresses.
func TestFamilies(t *testing.T) {
	both := []redirect.Family{redirect.IPv4, redirect.IPv6}
	for name, c := range map[string]struct {
		options testnet.Options
		add     []string // more addresses, each with its interface before it
		want    []redirect.Family
	}{
		"both":       {testnet.Options{}, nil, both},
		"IPv4":       {testnet.Options{Families: []testnet.Family{testnet.IPv4}}, nil, both[:1]},
		"IPv6":       {testnet.Options{Families: []testnet.Family{testnet.IPv6}}, nil, both[1:]},
		"lo's":       {testnet.Options{Families: []testnet.Family{testnet.IPv6}}, []string{"lo 10.7.7.7/32"}, both[1:]},
		"link-local": {testnet.Options{Families: []testnet.Family{testnet.IPv6}}, []string{"eth0 169.254.3.4/32"}, both[1:]},
		"without IPv6": {testnet.Options{Families: []testnet.Family{testnet.IPv4}, NoIPv6: true}, nil,
			both[:1]},
		"of a link": {testnet.Options{Families: []testnet.Family{testnet.IPv6}},
			[]string{"eth0 10.7.7.7 peer 10.7.7.8"}, both},
		"a link's other end": {testnet.Options{Families: []testnet.Family{testnet.IPv6}},
			[]string{"eth0 169.254.3.4 peer 10.7.7.8"}, both[1:]},
		"user namespace": {testnet.Options{UserNamespace: true}, nil, both},
	} {
		lab, n := newLab(t, c.options)
		for _, address := range c.add {
			args := append(strings.Fields("address add dev"), strings.Fields(address)...)
			out, err := lab.PodCommand("ip", args...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		got, err := n.Families()
		slices.Sort(got)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, c.want)
		}
	}
}

// A host needs the iptables programs of captured families only.
func TestProgramsOfOneFamily(t *testing.T) {
	profile := testnet.FamilyProfiles[0] // with IPv4 only
	for _, backend := range []Backend{IptablesNFT, IptablesLegacy} {
		_, n := newLab(t, testnet.Options{})
		onHostWith(t, no6)
		applied := mustApply(t, n, backend, ruleSet(t, profile))
		if len(applied.Skipped) > 0 {
			t.Errorf("%s: skipped %v", backend, applied.Skipped)
		}
		if err := n.Check(applied, ruleSet(t, profile)); err != nil {
			t.Errorf("%s: %v", backend, err)
		}
		both := ruleSet(t, testnet.BaseProfiles[0])
		if _, err := n.Apply(backend, both); !IsUnusable(err) {
			t.Errorf("%s: both families without ip6tables: %v", backend, err)
		}
		onThisHost(t)
	}
}

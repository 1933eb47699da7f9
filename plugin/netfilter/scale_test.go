package netfilter

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
)

// large returns a profile that excludes prefixes of each family and ports in each direction. No two prefixes are
// adjacent. One destination and one port of the flows are excluded, others are not.
func large(prefixes, ports int) testnet.Profile {
	ranges, numbers := []string{"203.0.113.0/24", "2001:db8:7::/48"}, []string{"9090"}
	for i := range prefixes - 1 {
		ranges = append(ranges, fmt.Sprintf("10.%d.%d.0/24", i>>7, i<<1&0xff), fmt.Sprintf("fd00:%x::/32", 2*i))
	}
	for i := range ports - 1 {
		numbers = append(numbers, fmt.Sprint(20000+2*i))
	}
	return testnet.Profile{Name: "large", Settings: map[string]any{
		"excludeOutboundIPRanges": strings.Join(ranges, ","),
		"excludeOutboundPorts":    strings.Join(numbers, ","), "excludeInboundPorts": strings.Join(numbers, ","),
	}}
}

// TestLarge writes lists with thousands of elements twice, and then sends all flows, some of them to listed
// destinations.
func TestLarge(t *testing.T) {
	profile := large(5000, 1000)
	rules := ruleSet(t, profile)
	eachBackend(t, func(t *testing.T, backend Backend) {
		lab, n := newLab(t, testnet.Options{})
		for range 2 {
			mustApply(t, n, backend, rules)
		}
		if err := lab.Use(profile); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"app-outside", "app-service-9090", "peer-pod-9090"} {
			for _, flow := range testnet.Flows(profile) {
				if direct := testnet.Expected(profile, flow, testnet.IPv6).Landed; flow.Name == name &&
					(direct == testnet.AtOutbound || direct == testnet.AtInbound) {
					t.Errorf("%s is not excluded", name)
				}
			}
		}
		if err := lab.Reset(); err != nil {
			t.Fatal(err)
		}
		for _, result := range lab.Check() {
			t.Error(result)
		}
		if applied := apply(t, n, backend, rules); n.Remove(applied) != nil ||
			strings.Contains(packetRules(t, lab), "ISTIO_") {
			t.Error("rules are left")
		}
	})
}

// TestAtOnce writes to many namespaces at the same time, as on a node that starts all its pods.
func TestAtOnce(t *testing.T) {
	rules := named(t, "tproxy-dns")
	spaces := make([]*NetNS, 32)
	for i := range spaces {
		_, spaces[i] = newLab(t, testnet.Options{})
	}
	for _, backend := range backends { // each replaces the rules of the one before
		var group sync.WaitGroup
		for _, n := range spaces {
			group.Go(func() {
				applied, err := n.Apply(backend, rules)
				if err == nil {
					err = n.Check(applied, rules)
				}
				if err != nil {
					t.Errorf("%s: %v", backend, err)
				}
			})
		}
		group.Wait()
	}
}

// TestSameAtOnce writes to one namespace many times at once: the rules must not be combined.
func TestSameAtOnce(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend Backend) {
		lab, n := newLab(t, testnet.Options{})
		rules := named(t, "tproxy-dns")
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() { _, _ = n.Apply(backend, rules) }) // it may lose the race and return an error
		}
		group.Wait()
		applied := mustApply(t, n, backend, rules)
		fresh, m := newLab(t, testnet.Options{})
		apply(t, m, backend, rules)
		compareText(t, used(packetRules(t, lab)), used(packetRules(t, fresh)))
		if err := n.Remove(applied); err != nil {
			t.Error(err)
		}
	})
}

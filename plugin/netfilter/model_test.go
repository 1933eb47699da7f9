package netfilter

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
)

// FuzzTraffic draws settings and packets, and asserts that every packet lands where Istio's semantics want it
// (testnet.Expected, which knows nothing of the renderer), with the rules of either backend. The seed is all there is
// to an input.
func FuzzTraffic(f *testing.F) {
	for seed := range uint64(12) {
		f.Add(seed)
	}
	// a lab costs more than a hundred packets: every process of the fuzzer has one
	lab := sync.OnceValues(func() (*testnet.Lab, error) { return testnet.New(testnet.Options{}) })
	f.Cleanup(func() {
		if l, err := lab(); err == nil {
			_ = l.Close()
		}
	})
	f.Fuzz(func(t *testing.T, seed uint64) {
		l, err := lab()
		if err != nil {
			t.Fatal(err)
		}
		n, err := Open(l.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		random := rand.New(rand.NewPCG(seed, 0))
		profile := testnet.RandomProfile(random)
		flows := testnet.RandomFlows(random, profile, 60)
		if err := l.Use(profile); err != nil {
			t.Fatal(err)
		}
		rules := ruleSet(t, profile)
		for _, backend := range []Backend{Nftables, IptablesNFT} {
			applied, err := n.Apply(backend, rules)
			if err != nil {
				t.Fatalf("%s: %s: %v", backend, profile.JSON(), err)
			}
			if err := l.Reset(); err != nil {
				t.Fatal(err)
			}
			for _, result := range l.CheckFlows(flows) {
				t.Errorf("%s: %s: %s", backend, profile.JSON(), result)
			}
			if err := n.Check(applied, rules); err != nil {
				t.Errorf("%s: %s: %v", backend, profile.JSON(), err)
			}
		}
	})
}

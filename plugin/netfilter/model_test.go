package netfilter

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/istio-pod-network/controller/plugin/trace"
	"github.com/istio-pod-network/controller/plugin/trace/tracetest"
)

// FuzzTraffic draws settings and packets, and asserts that every packet lands where Istio's semantics want it
// (testnet.Expected, which knows nothing of the renderer), with the rules of every backend; and where package trace,
// which knows nothing of the semantics, has them walk by the rules. The seed is all there is to an input.
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
		predictor := predictorOf(t, profile)
		for _, backend := range backends {
			predictor.Rules.Iptables = backend != Nftables
			applied, err := n.Apply(backend, rules)
			if err != nil {
				t.Fatalf("%s: %s: %v", backend, profile.JSON(), err)
			}
			if err := l.Reset(); err != nil {
				t.Fatal(err)
			}
			for _, result := range l.TryFlows(flows) {
				if !result.OK() {
					t.Errorf("seed %d: %s: %s: %s", seed, backend, profile.JSON(), result)
				}
				if want, agrees := predictor.Agrees(result); !agrees {
					t.Errorf("seed %d: %s: %s: %s; trace says %s", seed, backend, profile.JSON(), result, want)
				}
			}
			if err := n.Check(applied, rules); err != nil {
				t.Errorf("%s: %s: %v", backend, profile.JSON(), err)
			}
		}
	})
}

// predictorOf has package trace predict the flows of a profile.
func predictorOf(t *testing.T, profile testnet.Profile) tracetest.Predictor {
	t.Helper()
	spec, err := redirect.ParseSpec(profile.JSON())
	if err != nil {
		t.Fatal(err)
	}
	spec = spec.ForAddresses(redirect.Families)
	return tracetest.Predictor{Rules: trace.Rules{RuleSet: spec.RuleSet(), Spec: spec}, Profile: profile}
}

package trace_test

import (
	"math/rand/v2"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/istio-pod-network/controller/plugin/trace"
	"github.com/istio-pod-network/controller/plugin/trace/tracetest"
)

func rulesOf(t *testing.T, profile testnet.Profile) trace.Rules {
	t.Helper()
	spec, err := redirect.ParseSpec(profile.JSON())
	if err != nil {
		t.Fatal(err)
	}
	spec = spec.ForAddresses(redirect.Families)
	return trace.Rules{RuleSet: spec.RuleSet(), Spec: spec}
}

// TestAgreesWithTheModel walks the flows of every profile, and of many random ones, and asserts that each lands where
// Istio's semantics want it (testnet.Expected, which knows neither rules nor walks). That it does so with real packets,
// too, is FuzzTraffic's to say, in package netfilter.
func TestAgreesWithTheModel(t *testing.T) {
	profiles := append([]testnet.Profile{testnet.NoRules}, testnet.Profiles...)
	flows := 0
	for _, profile := range append(profiles, testnet.FamilyProfiles...) {
		flows += agree(t, profile, testnet.Flows(profile))
		if t.Failed() {
			return
		}
	}
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 1))
		profile := testnet.RandomProfile(random)
		flows += agree(t, profile, testnet.RandomFlows(random, profile, 60))
	}
	t.Logf("%d flows", flows)
}

// agree walks flows in both families.
func agree(t *testing.T, profile testnet.Profile, flows []testnet.Flow) (walked int) {
	t.Helper()
	predictor := tracetest.Predictor{Rules: rulesOf(t, profile), Profile: profile}
	for _, family := range []testnet.Family{testnet.IPv4, testnet.IPv6} {
		for _, f := range flows {
			if !f.In(family) {
				continue
			}
			walked++
			want := testnet.Expected(profile, f, family)
			if got, agrees := predictor.Agrees(testnet.Result{Flow: f, Family: family, Got: want, Want: want}); !agrees {
				t.Errorf("%s %s: %s %s lands at %s; want %s", profile.Name, profile.JSON(), family, f, got, want)
			}
		}
	}
	return walked
}

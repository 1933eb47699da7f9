package redirect

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
)

// unresolved adds a variable of the proxy without a literal value.
func unresolved(name string) edit {
	return proxyEdit(func(c *Container) { c.Unresolved = []string{name} })
}

// The captured families follow from the configuration, from the sidecar's environment, and from the pod's addresses. An
// Istio sidecar without dual stack listens in IPv4 if the pod has an IPv4 address.
func TestFamilies(t *testing.T) {
	both, v4, v6 := []Family{IPv4, IPv6}, []Family{IPv4}, []Family{IPv6}
	for _, test := range []struct {
		choice string
		edits  []edit
		has    []Family
		want   Captured
	}{
		{"all", nil, v4, CapturedAll},
		{"all", []edit{proxyEnv(EnvDualStack, "false")}, both, CapturedAll},
		{"proxy", nil, both, CapturedIPv4},
		{"proxy", nil, []Family{IPv6, IPv4}, CapturedIPv4},
		{"proxy", nil, v4, CapturedIPv4},
		{"proxy", nil, v6, CapturedIPv6},
		{"proxy", nil, nil, CapturedAll},
		{"proxy", []edit{proxyEnv(EnvDualStack, "true")}, both, CapturedAll},
		{"proxy", []edit{proxyEnv(EnvDualStack, "true"), nativeSidecar}, v4, CapturedAll},
		{"proxy", []edit{proxyEnv(EnvDualStack, "false")}, both, CapturedIPv4},
		{"proxy", []edit{proxyEnv(EnvDualStack, "yes")}, both, CapturedIPv4},
		{"proxy", []edit{unresolved(EnvDualStack)}, both, CapturedAll},
		{"proxy", []edit{unresolved(EnvDNSCapture)}, both, CapturedIPv4},
		{"proxy", []edit{func(p *Pod, policy *Policy) {
			*p = Pod{Namespace: p.Namespace, Name: p.Name, Annotations: p.Annotations}
			policy.Agent = false // there is no agent to ask for the containers
		}}, both, CapturedAll},
	} {
		pod, policy := meshPod(append([]edit{configured(t, fmt.Sprintf(`{"families":%q}`, test.choice))}, test.edits...)...)
		decision, err := Decide(pod, policy)
		got := decision.Spec.ForAddresses(test.has)
		if err != nil || got.Families != test.want {
			t.Errorf("%s of a pod with %v and %+v: %q, %v, want %q", test.choice, test.has, pod.Containers, got.Families, err,
				test.want)
		}
		if again := spec(t, printed(t, got)); again.RuleSet().Hash() != got.RuleSet().Hash() {
			t.Errorf("%s: a record does not hold it", printed(t, got))
		}
	}
}

// A family that is not captured has no rules, addresses or routes. The other family's do not change.
func TestRulesOfOneFamily(t *testing.T) {
	for name, raw := range profiles {
		both := spec(t, raw)
		for family, one := range map[Family]Captured{IPv4: CapturedIPv4, IPv6: CapturedIPv6} {
			alone := both
			alone.Families = one
			var want RuleSet
			for _, a := range both.RuleSet().Addresses {
				if a.Family == family {
					want.Addresses = append(want.Addresses, a)
				}
			}
			for _, r := range both.RuleSet().Routes {
				if r.Family == family {
					want.Routes = append(want.Routes, r)
				}
			}
			for _, table := range both.RuleSet().Tables {
				if table.Family == family {
					want.Tables = append(want.Tables, table)
				}
			}
			if alone.RuleSet().String() != want.String() {
				t.Errorf("%s, %s alone: %s", name, one, alone.RuleSet())
			}
		}
	}
	for captured, one := range map[Captured]string{"": "", CapturedAll: "", CapturedProxy: "", CapturedIPv4: "IPv4",
		CapturedIPv6: "IPv6"} {
		if captured.One() != one || one == "" && !slices.Equal(captured.Of(), Families) {
			t.Errorf("%q: %q %v", captured, captured.One(), captured.Of())
		}
	}
}

// A record may have one family. A configuration may not: pods with addresses of the other family would not be captured.
func TestFamiliesOfAnOperator(t *testing.T) {
	for choice, valid := range map[string]bool{"all": true, "proxy": true, "IPv4": false, "IPv6": false, "ipv4": false,
		"": false} {
		raw := json.RawMessage(fmt.Sprintf(`{"families":%q}`, choice))
		policy, err := ParsePolicy(map[string]json.RawMessage{"redirect": raw})
		if valid {
			if err != nil || string(policy.Redirect.Families) != choice {
				t.Errorf("%s: %q, %v", raw, policy.Redirect.Families, err)
			}
			continue
		}
		wantInvalid(t, err, "redirect.families", fmt.Sprintf("%q", choice), "all or proxy")
	}
}

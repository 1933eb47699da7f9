package netfilter

import (
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// TestOtherSettingsTakeRoutesAway applies TPROXY's rules and then others, which do not need its policy routes.
func TestOtherSettingsTakeRoutesAway(t *testing.T) {
	for _, backend := range backends {
		t.Run(string(backend), func(t *testing.T) {
			lab, n := newLab(t, testnet.Options{})
			tproxy := redirect.DefaultSpec()
			tproxy.Mode = redirect.ModeTProxy
			for _, spec := range []redirect.Spec{tproxy, redirect.DefaultSpec()} {
				if _, err := n.Apply(backend, spec.RuleSet()); err != nil {
					t.Fatal(err)
				}
				for _, family := range []string{"-4", "-6"} {
					for _, list := range []string{"rule list", "route show table all"} {
						args := append([]string{family}, strings.Fields(list)...)
						out, err := lab.PodCommand("ip", args...).CombinedOutput()
						if err != nil {
							t.Fatalf("ip %s: %v: %s", args, err, out)
						}
						marked := strings.Contains(string(out), "0x539") || strings.Contains(string(out), "table 133")
						if want := spec.Mode == redirect.ModeTProxy; marked != want {
							t.Errorf("mode %s: ip %s %s: policy route is %t: %s", spec.Mode, family, list, marked, out)
						}
					}
				}
			}
		})
	}
}

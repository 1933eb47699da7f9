package netfilter

import (
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
)

// TestInboundPortTaken has an app listen at the sidecar's inbound port where the sidecar does not: before it has
// started, or in a family that it does not listen in. Redirected connections from outside come to the app then, and
// security.md says so. TPROXY delivers to nobody but a transparent socket, which takes a capability.
func TestInboundPortTaken(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend Backend) {
		lab, n := newLab(t, testnet.Options{})
		for name, want := range map[string]testnet.Landing{"default": testnet.AtApp, "tproxy": testnet.Timeout} {
			profile, _ := testnet.ProfileNamed(name)
			if err := lab.Use(profile); err != nil {
				t.Fatal(err)
			}
			apply(t, n, backend, ruleSet(t, profile))
			for _, family := range lab.Families() {
				giveBack, err := lab.TakeInbound(family)
				if err != nil {
					t.Fatal(err)
				}
				flow := testnet.Flow{From: testnet.FromPeer, Proto: testnet.TCP, To: testnet.Pod, Port: 7000} // nobody's
				if got := lab.Run(flow, family); got.Landed != want {
					t.Errorf("%s, %s: %s, want %s", name, family, got, want)
				}
				giveBack()
				if got := lab.Run(flow, family); got.Landed != testnet.AtInbound {
					t.Errorf("%s, %s, given back: %s", name, family, got)
				}
			}
		}
	})
}

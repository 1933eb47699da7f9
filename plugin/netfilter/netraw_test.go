package netfilter

import (
	"errors"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/testnet"
	"golang.org/x/sys/unix"
)

// TestNetRaw makes the attempts of an app with CAP_NET_RAW. None that uses the kernel's TCP succeeds. Without the guard
// each does.
func TestNetRaw(t *testing.T) {
	tried := map[testnet.Kind]bool{}
	for name := range guarded {
		for _, backend := range backends {
			t.Run(name+"/"+string(backend), func(t *testing.T) {
				lab, n := newLab(t, testnet.Options{})
				profile, _ := testnet.ProfileNamed(name)
				await.Must(t, lab.Use(profile))
				apply(t, n, backend, ruleSet(t, profile))
				for _, r := range lab.TryFlows(testnet.NetRawFlows) {
					if !r.OK() || r.Want.Landed != testnet.Kept {
						t.Errorf("%s", r)
					}
				}
				applyBefore(t, lab, backend, name)
				through := getThrough(lab, testnet.NetRawFlows)
				for _, flow := range testnet.NetRawFlows {
					for _, family := range lab.Families() {
						tried[flow.Kind] = tried[flow.Kind] || through[family.String()+" "+flow.Name]
					}
				}
			})
		}
	}
	for _, flow := range testnet.NetRawFlows {
		if !tried[flow.Kind] {
			t.Errorf("%s attacks nothing: without the guard it gets through nowhere", flow.Kind)
		}
	}
}

// TestCrafted sends packets that an app with CAP_NET_RAW makes itself. Packets that pass the IP layer are redirected,
// except for IPv4 fragments that may not be reassembled, which only iptables-legacy drops. Ethernet frames bypass all
// rules. security.md says so.
func TestCrafted(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend Backend) {
		for _, name := range []string{"default", "tproxy"} {
			lab, n := newLab(t, testnet.Options{})
			profile, _ := testnet.ProfileNamed(name)
			await.Must(t, lab.Use(profile))
			apply(t, n, backend, ruleSet(t, profile))
			for how, passes := range map[testnet.Crafted]map[testnet.Family]bool{
				testnet.ByRawSocket: {},
				testnet.InFragments: {testnet.IPv4: backend != IptablesLegacy},
				testnet.InFrame:     {testnet.IPv4: true, testnet.IPv6: true},
			} {
				for _, family := range lab.Families() {
					reached, err := lab.Reaches(how, family, unix.CAP_NET_RAW)
					if dropped := errors.Is(err, unix.EPERM); dropped && !passes[family] {
						err = nil
					}
					if err != nil || reached != passes[family] {
						t.Errorf("%s, %s, %s: it reaches the peer: %t, %v", name, how, family, reached, err)
					}
					if _, err := lab.Reaches(how, family); !errors.Is(err, unix.EPERM) {
						t.Errorf("%s, %s, %s: without the capability: %v", name, how, family, err)
					}
				}
			}
		}
	})
}

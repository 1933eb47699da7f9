package cni

import (
	"encoding/json"
	"maps"
	"testing"

	"github.com/istio-pod-network/controller/internal/testnet"
)

// TestTogether has pods with settings that no scenario of the cluster has: interfaces of virtual machines with DNS
// capture, and included owner groups with DNS capture. Every flow of such a pod must go where the settings say.
func TestTogether(t *testing.T) {
	const prefix = "pod-network-controller.istio.io/"
	for name, says := range map[string]map[string]string{
		"virtual machines": {"rerouteVirtualInterfaces": "tap0,net*"},
		"groups":           {"includeOutboundOwnerGroups": "1337,5000"},
	} {
		for _, mode := range []string{"REDIRECT", "TPROXY"} {
			for _, backend := range []string{"nftables", "iptables-nft"} {
				t.Run(name+"/"+mode+"/"+backend, func(t *testing.T) {
					n := newNode(t)
					t.Setenv("TMPDIR", n.dir) // in this PID namespace the labs of other tests look abandoned
					lab, err := testnet.New(testnet.Options{})
					if err != nil {
						t.Fatal(err)
					}
					defer lab.Close()
					settings, annotations := map[string]any{"dnsCapture": true, "mode": mode}, maps.Clone(mesh)
					for key, value := range says {
						annotations[prefix+key] = value
					}
					conf := n.direct("1.1.0", object{"backend": backend, "redirect": maps.Clone(settings),
						"runtimeConfig": object{capability: annotations}, "prevResult": json.RawMessage(crafted("1.1.0"))})
					for key, value := range says {
						settings[key] = value
					}
					if got := n.run(t, "ADD", conf, attachment("aaaa", lab.Path)); got.code != 0 {
						t.Fatalf("ADD: %s", got.stdout)
					}
					if err := lab.Use(testnet.Profile{Name: name, Settings: settings}); err != nil {
						t.Fatal(err)
					}
					for _, r := range lab.Check() {
						t.Error(r)
					}
					if got := n.run(t, "CHECK", conf, attachment("aaaa", lab.Path)); got.code != 0 {
						t.Errorf("CHECK: %s", got.stdout)
					}
				})
			}
		}
	}
}

package cni

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

// lacksEnv is the environment variable with what was removed from this kernel or node before the tests, separated by
// spaces: modules, or the ip6tables programs. scripts/kernels.sh sets it.
const lacksEnv = "LACKS"

// TestBackends runs every verb with every backend and mode. If the kernel or the node lacks something, each forced
// backend works or fails according to its needs. auto and iptables work if one of their choices does, and otherwise
// name the reason of each. STATUS says the same as ADD, and a failed ADD leaves nothing.
func TestBackends(t *testing.T) {
	lacks := strings.Fields(os.Getenv(lacksEnv))
	for _, mode := range []string{"REDIRECT", "TPROXY"} {
		for _, backend := range []string{"nftables", "iptables-nft", "iptables-legacy", "iptables", "auto"} {
			t.Run(backend+"/"+mode, func(t *testing.T) {
				n := newNode(t)
				netns := n.newNetns()
				conf := n.direct("1.1.0", object{"backend": backend, "redirect": object{"mode": mode},
					"runtimeConfig": object{capability: mesh}, "prevResult": json.RawMessage(crafted("1.1.0"))})
				if works(backend, mode, lacks) {
					n.servesPod(t, conf, netns)
				} else {
					n.refusesPod(t, conf, netns, choices[backend])
				}
				n.wantNoChains(netns)
			})
		}
	}
}

// needs are the modules and programs that a backend needs in every mode, and those that it needs for TPROXY.
var needs = map[string]struct{ always, tproxy []string }{
	"nftables":        {[]string{"nf_tables", "nft_chain_nat"}, []string{"nft_tproxy"}},
	"iptables-nft":    {[]string{"nf_tables", "nft_chain_nat", "xt_owner", "ip6tables"}, []string{"xt_TPROXY"}},
	"iptables-legacy": {[]string{"ip_tables", "xt_owner", "ip6tables"}, []string{"xt_TPROXY"}},
}

// choices are the backends from which auto and iptables choose.
var choices = map[string][]string{
	"iptables": {"iptables-nft", "iptables-legacy"},
	"auto":     {"nftables", "iptables-nft", "iptables-legacy"},
}

// works reports whether ADD has to succeed.
func works(backend, mode string, lacks []string) bool {
	if choices := choices[backend]; choices != nil {
		return slices.ContainsFunc(choices, func(b string) bool { return works(b, mode, lacks) })
	}
	missing := func(need string) bool { return slices.Contains(lacks, need) }
	need := needs[backend]
	return !slices.ContainsFunc(need.always, missing) && (mode != "TPROXY" || !slices.ContainsFunc(need.tproxy, missing))
}

// servesPod runs the verbs on a mesh pod. The last one removes what was written.
func (n *node) servesPod(t *testing.T, conf []byte, netns string) {
	t.Helper()
	if got := n.run(t, "STATUS", conf, nil); got.code != 0 {
		t.Errorf("STATUS: %s", got.stdout)
	}
	pod := attachment("aaaa", netns)
	for _, verb := range []string{"ADD", "ADD", "CHECK", "DEL"} {
		if got := n.run(t, verb, conf, pod); got.code != 0 {
			t.Errorf("%s: %s", verb, got.stdout)
		}
	}
}

// refusesPod checks that STATUS and ADD fail and name the reason of each backend in choices.
func (n *node) refusesPod(t *testing.T, conf []byte, netns string, choices []string) {
	t.Helper()
	words := []string{"is not usable: "}
	for _, choice := range choices {
		words = append(words, choice+": ")
	}
	pod := attachment("aaaa", netns)
	n.run(t, "STATUS", conf, nil).wantError(t, 50, words...)
	n.run(t, "ADD", conf, pod).wantError(t, 104, words...)
	if got := n.records(); len(got) != 0 {
		t.Errorf("records of %q after an ADD that failed", got)
	}
	if got := n.run(t, "DEL", conf, pod); got.code != 0 {
		t.Errorf("DEL: %s", got.stdout)
	}
}

// wantNoChains fails the test if any tool lists a rule of ours in the namespace.
func (n *node) wantNoChains(netns string) {
	n.Helper()
	for _, list := range []string{"nft list ruleset", "iptables-legacy-save", "ip6tables-legacy-save"} {
		listing, err := n.tryInNetns(netns, strings.Fields(list)...)
		if err == nil && (strings.Contains(listing, "ISTIO_") || strings.Contains(listing, pluginType)) {
			n.Errorf("%s has rules of ours:\n%s", list, listing)
		}
	}
}

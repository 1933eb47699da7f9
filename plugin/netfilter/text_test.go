package netfilter

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/golden"
	"github.com/istio-pod-network/controller/internal/testnet"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// untyped is how nft lists a port in a set that it has made itself for a connection's port: without its type.
var untyped = regexp.MustCompile(`0x([0-9a-f]{4}) \[invalid type\]`)

// typed returns the ports in nft's usual form.
func typed(text string) string {
	port, err := strconv.ParseUint(untyped.FindStringSubmatch(text)[1], 16, 16)
	if err != nil {
		return err.Error()
	}
	return strconv.FormatUint(port, 10)
}

// TestSameAsNFT gives RuleSet.String to nft, and compares its rules with those of Apply: expressions, sets, priorities
// and comments are the same, and so is the text after a round trip through the kernel.
func TestSameAsNFT(t *testing.T) {
	lab, n := newLab(t, testnet.Options{})
	for _, profile := range testnet.Profiles {
		rules := ruleSet(t, profile)
		apply(t, n, Nftables, rules)
		ours := shell(t, lab, "nft -s list ruleset; nft flush ruleset")
		nft := lab.PodCommand("nft", "-f", "-")
		nft.Stdin = strings.NewReader(rules.String())
		if out, err := nft.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", profile.Name, err, out)
		}
		theirs := untyped.ReplaceAllStringFunc(shell(t, lab, "nft -s list ruleset; nft flush ruleset"), typed)
		if compareText(t, ours, theirs); t.Failed() {
			t.Fatal(profile.Name)
		}
	}
}

// TestRestoreInput compares the input of iptables-restore with golden files. It has every chain and rule, and deletes
// what is held.
func TestRestoreInput(t *testing.T) {
	for _, name := range []string{"default", "tproxy-dns", "tproxy-drop-invalid", "include-ports",
		"tproxy-exclude-interfaces", "exclude-ranges"} {
		for _, family := range redirect.Families {
			golden.Compare(t, restored(name+"-"+family.String()), restoreInput(family, named(t, name), nil))
		}
	}
	held := held{
		redirect.Raw: {"OUTPUT": {"-A OUTPUT -j ISTIO_OUTPUT_DNS"}, "ISTIO_OUTPUT_DNS": {}, markerChain: {}},
		redirect.NAT: {"OUTPUT": {"-A OUTPUT -j ISTIO_OUTPUT"}, "PREROUTING": {"-A PREROUTING -j ISTIO_INBOUND"},
			"ISTIO_OLD": {}, "ISTIO_OUTPUT": {}},
	}
	golden.Compare(t, restored("default-ip-over"), restoreInput(redirect.IPv4, named(t, "default"), held))
	golden.Compare(t, restored("remove-ip"), restoreInput(redirect.IPv4, redirect.RuleSet{}, held))
}

// TestRendering pins how one rule set is written with iptables, which RuleSet.Hash does not cover. Who changes that
// raises redirect.Rendering, which is in the file's name: running pods then count as having older rules.
func TestRendering(t *testing.T) {
	written := ""
	for _, family := range redirect.Families {
		written += restoreInput(family, redirect.RuleSet{Tables: []redirect.Table{
			rendered(family, redirect.Raw, redirect.Output, redirect.SetZone(1)),
			rendered(family, redirect.Mangle, redirect.Prerouting, redirect.TProxyTo{Port: 15006, Mark: 1337}),
			rendered(family, redirect.NAT, redirect.Output, redirect.RedirectTo(15001)),
		}}, nil)
	}
	golden.Compare(t, restored(fmt.Sprint("rendering-", redirect.Rendering)), written)
}

// rendered returns a table with one rule in a chain of its own, and a jump to that chain.
func rendered(family redirect.Family, kind redirect.Kind, hook redirect.Hook, target redirect.Target) redirect.Table {
	return redirect.Table{Family: family, Kind: kind, Chains: []redirect.Chain{
		{Name: "ISTIO_RENDERED", Rules: []redirect.Rule{{Matches: []redirect.Match{redirect.TCP}, Target: target}}},
		{Name: "ISTIO_HOOKED", Hook: hook, Rules: []redirect.Rule{{Target: redirect.Jump("ISTIO_RENDERED")}}},
	}}
}

func restored(name string) string { return filepath.Join("testdata", name+".restore") }

// TestSocketlessFlow checks that the flows distinguish the two ways to express "not the proxy".
func TestSocketlessFlow(t *testing.T) {
	for _, profile := range testnet.Profiles {
		found := false
		for _, flow := range testnet.Flows(profile) {
			found = found || flow.Kind == testnet.NoSocket
		}
		if !found {
			t.Errorf("profile %s has no flow without a socket", profile.Name)
		}
	}
}

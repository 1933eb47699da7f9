package cni

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/istio-pod-network/controller/conformance/internal/build"
)

// TestChain is the life of a mesh pod behind a real primary plugin, in every version.
func TestChain(t *testing.T) {
	for _, primary := range []string{"bridge", "ptp"} {
		for _, version := range versions {
			t.Run(primary+" "+version, func(t *testing.T) { testChain(t, primary, version) })
		}
	}
}

func testChain(t *testing.T, primary, version string) {
	n := newNode(t)
	w := n.network(n.conflist(version, "pods", primary, nil))
	netns := n.newNetns()
	rt := runtimeConf("aaaa", netns, mesh)

	w.add(t, rt)
	defer w.del(t, rt)
	if first, ours := decode(t, w.exec.stdout[primary]), decode(t, w.exec.stdout[pluginType]); !reflect.DeepEqual(first,
		ours) {
		t.Errorf("%s answered %v, ours %v", primary, first, ours)
	}
	n.wantRules(netns)
	if got := n.records(); !slices.Equal(got, []string{"aaaa"}) {
		t.Errorf("records of %q, want aaaa", got)
	}
	w.add(t, runtimeConf("bbbb", n.newNetns(), noMesh))
	if version >= "0.4.0" { // the first version with CHECK
		if err := w.cni.CheckNetworkList(t.Context(), w.list, rt); err != nil {
			t.Errorf("CHECK after ADD: %v", err)
		}
	}
	if err := w.cni.GetStatusNetworkList(t.Context(), w.list); err != nil {
		t.Errorf("STATUS: %v", err)
	}
	w.del(t, rt)
	n.wantUntouched(netns)
	if got := n.records(); len(got) != 0 {
		t.Errorf("records of %q after DEL, want none", got)
	}
	w.del(t, rt)
}

// TestCheckNamesDrift deletes one rule of each chain in turn. CHECK must fail and name the chain, and ADD must repair
// it.
func TestCheckNamesDrift(t *testing.T) {
	n := newNode(t)
	w := n.network(n.conflist("1.1.0", "pods", "bridge", nil))
	netns := n.newNetns()
	rt := runtimeConf("aaaa", netns, mesh)
	w.add(t, rt)
	defer w.del(t, rt)
	_, rules := n.nftables(netns)
	seen := map[string]bool{}
	for _, rule := range rules {
		place := rule.Family + " " + rule.Chain
		if seen[place] {
			continue
		}
		seen[place] = true
		_, now := n.nftables(netns) // handles change with every ADD
		at := slices.IndexFunc(now, func(r nftRule) bool { return r.Family == rule.Family && r.Chain == rule.Chain })
		n.inNetns(netns, "nft", "delete", "rule", rule.Family, rule.Table, rule.Chain, "handle", fmt.Sprint(now[at].Handle))
		err := w.cni.CheckNetworkList(t.Context(), w.list, rt)
		if err == nil || !strings.Contains(err.Error(), rule.Chain) {
			t.Errorf("CHECK without a rule of chain %q of %s: %v, want an error that names the chain", rule.Chain, rule.Family,
				err)
		}
		repair(t, w, rt)
	}
	n.inNetns(netns, "nft", "delete", "table", "ip6", pluginType)
	if err := w.cni.CheckNetworkList(t.Context(), w.list, rt); err == nil || !strings.Contains(err.Error(), "ip6") {
		t.Errorf("CHECK without the table of ip6: %v, want an error that names it", err)
	}
}

// The text of a refused ADD is as troubleshooting.md quotes it: the plugin's error after libcni's words, without its
// code. TestAgentAway (e2e) and TestCRIOErrorsAsPrinted (node) test the words that the runtimes add.
func TestErrorAsPrinted(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(build.Root(), "docs", "troubleshooting.md"))
	if err != nil {
		t.Fatal(err)
	}
	const begins = `plugin type="istio-pod-network" failed (add): istio-pod-network: `
	if !strings.Contains(string(page), "`"+begins+"`") {
		t.Errorf("troubleshooting.md does not say that it begins with %q", begins)
	}
	n := newNode(t)
	wrong := maps.Clone(mesh)
	wrong["traffic.sidecar.istio.io/excludeOutboundPorts"] = "http"
	w := n.network(n.conflist("1.1.0", "pods", "bridge", nil))
	rt := runtimeConf("aaaa", n.newNetns(), wrong)
	_, err = w.cni.AddNetworkList(t.Context(), w.list, rt)
	defer w.del(t, rt)
	if err == nil || !strings.HasPrefix(err.Error(), begins) || strings.Contains(err.Error(), "code") {
		t.Errorf("it prints %v", err)
	}
}

// repair runs the plugin alone once more, as the agent does, with the result that libcni cached.
func repair(t *testing.T, w *network, rt *libcni.RuntimeConf) {
	t.Helper()
	previous, err := w.cni.GetNetworkListCachedResult(w.list, rt)
	if err != nil {
		t.Fatal(err)
	}
	res := w.run(t, "ADD", w.direct(previous.Version(), object{
		"name": "pods", "prevResult": previous, "runtimeConfig": object{capability: mesh},
	}), attachment(rt.ContainerID, rt.NetNS))
	if res.code != 0 {
		t.Fatalf("ADD again: %s", res.stdout)
	}
	if err := w.cni.CheckNetworkList(t.Context(), w.list, rt); err != nil {
		t.Fatalf("CHECK after ADD again: %v", err)
	}
}

// TestDelWithoutNetns removes the pod's network namespace before DEL, as after a crash of the runtime.
func TestDelWithoutNetns(t *testing.T) {
	n := newNode(t)
	w := n.network(n.conflist("1.0.0", "pods", "ptp", nil))
	rt := runtimeConf("aaaa", n.newNetns(), mesh)
	w.add(t, rt)
	n.removeNetns(rt.NetNS)
	w.del(t, rt)
	if got := n.records(); len(got) != 0 {
		t.Errorf("records of %q, want none", got)
	}
	w.del(t, rt)
}

// TestGC removes one of three attachments. Only its record may be removed.
func TestGC(t *testing.T) {
	n := newNode(t)
	pods := n.network(n.conflist("1.1.0", "pods", "bridge", nil))
	other := n.network(n.conflist("1.1.0", "other", "bridge", nil))
	lives, gone, foreign := runtimeConf("aaaa", n.newNetns(), mesh), runtimeConf("bbbb", n.newNetns(), mesh),
		runtimeConf("cccc", n.newNetns(), mesh)
	pods.add(t, lives)
	pods.add(t, gone)
	other.add(t, foreign)
	n.removeNetns(gone.NetNS)
	pods.cni = libcni.NewCNIConfigWithCacheDir([]string{n.bin}, t.TempDir(), pods.exec) // with an empty cache

	valid := &libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: "aaaa", IfName: "eth0"}}}
	if err := pods.cni.GCNetworkList(t.Context(), pods.list, valid); err != nil {
		t.Errorf("GC: %v", err)
	}
	if got := n.records(); !slices.Equal(got, []string{"aaaa", "cccc"}) {
		t.Errorf("records of %q after GC, want aaaa and cccc", got)
	}
	n.wantRules(lives.NetNS)
	n.wantRules(foreign.NetNS)
	pods.del(t, lives)
	other.del(t, foreign)
}

// TestIPTables runs the same chain with another backend.
func TestIPTables(t *testing.T) {
	n := newNode(t)
	w := n.network(n.conflist("1.1.0", "pods", "ptp", object{"backend": "iptables"}))
	netns := n.newNetns()
	rt := runtimeConf("aaaa", netns, mesh)
	w.add(t, rt)
	for _, save := range []string{"iptables-save", "ip6tables-save"} {
		if listing := n.inNetns(netns, save); !strings.Contains(listing, "ISTIO_REDIRECT") {
			t.Errorf("%s has no chain ISTIO_REDIRECT:\n%s", save, listing)
		}
	}
	if err := w.cni.CheckNetworkList(t.Context(), w.list, rt); err != nil {
		t.Errorf("CHECK after ADD: %v", err)
	}
	n.inNetns(netns, "iptables", "-t", "nat", "-F", "ISTIO_REDIRECT")
	if err := w.cni.CheckNetworkList(t.Context(), w.list, rt); err == nil ||
		!strings.Contains(err.Error(), "ISTIO_REDIRECT") {
		t.Errorf("CHECK with ISTIO_REDIRECT flushed: %v, want an error that names the chain", err)
	}
	w.del(t, rt)
	for _, save := range []string{"iptables-save", "ip6tables-save"} {
		if listing := n.inNetns(netns, save); strings.Contains(listing, "ISTIO_") {
			t.Errorf("%s still has chains of ours after DEL:\n%s", save, listing)
		}
	}
}

// decode parses exactly one JSON value. Numbers keep their text.
func decode(t testing.TB, data []byte) any {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var value, more any
	if err := decoder.Decode(&value); err != nil {
		t.Fatalf("stdout %q: %v", data, err)
	}
	if err := decoder.Decode(&more); err != io.EOF {
		t.Fatalf("stdout %q: more than one JSON value", data)
	}
	return value
}

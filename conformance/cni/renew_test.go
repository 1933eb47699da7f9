package cni

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/build"
)

// TestRenew makes the built plugin replace the rules of an earlier release in a running pod. It uses the settings of
// the pod's record, whatever the pod's annotations say now, and a failure removes nothing. Before the renewal, CHECK
// accepts the old rules as long as they redirect.
func TestRenew(t *testing.T) {
	n := newNode(t)
	netns := n.newNetns()
	conf := func(annotations map[string]string) []byte {
		return n.direct("1.0.0", object{"runtimeConfig": object{capability: annotations},
			"prevResult": json.RawMessage(crafted("1.0.0"))})
	}
	env := attachment("aaaa", netns)
	if res := n.run(t, "ADD", conf(mesh), env); res.code != 0 {
		t.Fatalf("ADD: %s", res.stdout)
	}
	now := n.inNetns(netns, "nft", "list", "ruleset")
	record, written := n.aged(netns)
	older := n.inNetns(netns, "nft", "list", "ruleset")
	if older == now {
		t.Fatal("the rules have not been aged")
	}
	if res := n.run(t, "CHECK", conf(mesh), env); res.code != 0 {
		t.Errorf("CHECK of rules of before: %s", res.stdout)
	}
	n.inNetns(netns, "nft", "flush", "chain", "ip", "istio-pod-network", "nat-istio-output")
	n.run(t, "CHECK", conf(mesh), env).wantError(t, 105, "OUTPUT leads to no nat rules of ip")
	n.inNetns(netns, "nft", "flush", "ruleset")
	n.inNetns(netns, "nft", "-f", rulesBefore())

	renew := append(env[:3:3], env[3]+";ISTIO_POD_NETWORK_RENEW=true")
	elsewhere := append([]string{renew[0], "CNI_NETNS=" + n.newNetns()}, renew[2:]...)
	n.run(t, "ADD", conf(noMesh), elsewhere).wantError(t, 105, "the rules were written to")
	if got := n.inNetns(netns, "nft", "list", "ruleset"); got != older {
		t.Errorf("a failure leaves\n%s\nnot\n%s", got, older)
	}
	if res := n.run(t, "ADD", conf(noMesh), renew); res.code != 0 {
		t.Fatalf("renewing: %s", res.stdout)
	}
	if got := n.inNetns(netns, "nft", "list", "ruleset"); got != now {
		t.Errorf("renewed to\n%s\nnot\n%s", got, now)
	}
	var before, after map[string]any
	for data, into := range map[string]*map[string]any{written: &before, n.read(record): &after} {
		if err := json.Unmarshal([]byte(data), into); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"time", "durationMicroseconds"} {
		before[key] = after[key]
	}
	if !reflect.DeepEqual(after, before) {
		t.Errorf("recorded %v, at first %v", after, before)
	}
	for _, verb := range []string{"CHECK", "DEL"} {
		if res := n.run(t, verb, conf(mesh), env); res.code != 0 {
			t.Errorf("%s: %s", verb, res.stdout)
		}
	}
	n.wantUntouched(netns)
}

// rulesBefore returns the path of the rules of an earlier release, in the syntax of nft(8).
func rulesBefore() string {
	return filepath.Join(build.Root(), "plugin", "netfilter", "testdata", "before", "default.nft")
}

// aged gives the pod the rules of an earlier release and a record of them. It returns the path of the record, and its
// content before that.
func (n *node) aged(netns string) (file, written string) {
	n.Helper()
	n.inNetns(netns, "nft", "flush", "ruleset")
	n.inNetns(netns, "nft", "-f", rulesBefore())
	file = filepath.Join(n.store.Pods(), "aaaa-eth0.json")
	written = n.read(file)
	_, hash, _ := strings.Cut(written, `"ruleSetHash":"`)
	hash, _, _ = strings.Cut(hash, `"`)
	if err := os.WriteFile(file, []byte(strings.Replace(written, hash, "0123456789abcdef", 1)), 0o600); err != nil {
		n.Fatal(err)
	}
	return file, written
}

func (n *node) read(file string) string {
	n.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		n.Fatal(err)
	}
	return string(data)
}

package patrol

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// A pod whose rules are not those that this release writes for its settings is counted, and reported once. What a
// kernel has skipped, and the node's settings for new pods, do not matter.
func TestOlderRules(t *testing.T) {
	tproxy := redirect.DefaultSpec()
	tproxy.Mode = redirect.ModeTProxy
	settings := func(r *record.Record, spec redirect.Spec) {
		var err error
		r.Spec, err = json.Marshal(spec)
		await.Must(t, err)
		r.RuleSetHash = spec.RuleSet().Hash()
	}
	for name, c := range map[string]struct {
		change func(*record.Record)
		older  bool
	}{
		"of this release, other settings, as listed": {func(r *record.Record) {
			settings(r, tproxy)
			r.Network, r.ContainerID = "net", "listed"
		}, false},
		"of this release":                 {func(*record.Record) {}, false},
		"of this release, other settings": {func(r *record.Record) { settings(r, tproxy) }, false},
		"where the kernel lacks something": {func(r *record.Record) {
			settings(r, tproxy)
			r.Skipped, r.Backend = []string{"route ip6: IPv6 is off", "address ::6/128 lo: IPv6 is off"}, "iptables-nft"
		}, false},
		"of another release":           {func(r *record.Record) { r.RuleSetHash = "cbf29ce484222325" }, true},
		"of one that kept no hash":     {func(r *record.Record) { r.RuleSetHash = "" }, true},
		"of one with other keys":       {func(r *record.Record) { r.Spec = []byte(`{"notYetKnown": true}`) }, true},
		"of one, with other settings":  {func(r *record.Record) { settings(r, tproxy); r.Spec = []byte(`{}`) }, true},
		"left untouched":               {func(r *record.Record) { r.Decision, r.RuleSetHash = record.Untouched, "" }, false},
		"keys of an earlier release":   {func(r *record.Record) { r.Spec = []byte(`{"mode": "REDIRECT"}`) }, false},
		"of a sandbox of another boot": {func(r *record.Record) { r.NetNS, r.RuleSetHash = "x/1/1", "" }, false},
	} {
		pod, other := agenttest.Running("cart"), agenttest.Running("other")
		b := patrolling(t, pod, other)
		r := agenttest.RecordFor(pod, "1/1")
		c.change(&r)
		if r.ContainerID == "listed" {
			await.Must(t, b.Store.Put(r))
			r.Spec = nil
		}
		b.records["r"], b.records["other"] = r, agenttest.RecordFor(other, "2/2")
		if name == "of a sandbox of another boot" { // the pod has another sandbox by now
			b.records["next"] = agenttest.RecordFor(pod, "3/3")
		}
		for range 3 {
			b.round(t.Context(), time.Now())
		}
		want := map[bool][]string{true: {"shop/cart"}}[c.older]
		if got := b.Older(); !slices.Equal(got, want) || sum(t, b.Metrics.Older) != float64(len(want)) {
			t.Errorf("%s: %q, %g are counted, want %q", name, got, sum(t, b.Metrics.Older), want)
		}
		events := strings.Join(sent(b.events), "\n")
		if n := strings.Count(events, " "+eventOlder+" "); n != len(want) || strings.Count(events, "\n") > 0 {
			t.Errorf("%s: Events %q", name, events)
		}
		if len(b.Bypassed()) > 0 {
			t.Errorf("%s: a bypass", name)
		}
	}
}

// A record that cannot be read says nothing about its pod yet: the next round tries again, and keeps the result.
func TestOlderRulesUnread(t *testing.T) {
	for name, hash := range map[string]string{"of this release": "", "of another": "cbf29ce484222325"} {
		pod := agenttest.Running("cart")
		b := patrolling(t, pod)
		r := agenttest.RecordFor(pod, "1/1")
		r.ContainerID = "listed"
		if hash != "" {
			r.RuleSetHash = hash
		}
		listed := r
		listed.Spec = nil
		b.records["r"] = listed
		look := func(when string, want bool) {
			t.Helper()
			b.round(t.Context(), time.Now())
			if older := len(b.Older()) > 0; older != want {
				t.Errorf("%s, %s: counted %t, want %t", name, when, older, want)
			}
		}
		look("before it can be read", false)
		await.Must(t, b.Store.Put(r))
		look("once it can", hash != "")
		await.Must(t, b.Store.Delete(r.ContainerID, r.IfName))
		look("and afterwards", hash != "")
		if events := sent(b.events); len(events) > 0 != (hash != "") || len(events) > 1 {
			t.Errorf("%s: Events %q", name, events)
		}
	}
}

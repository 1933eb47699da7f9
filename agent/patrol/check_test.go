package patrol

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/istio-pod-network/controller/plugin/record"
)

// Somebody who fills a pod's network namespace, so that its rules cannot be compared in time, hides nothing: that is
// drift.
func TestCheckTakesTooLong(t *testing.T) {
	r, _, dir := repairing(t, Apply, "exec sleep 60")
	pod := agenttest.Running("cart")
	write(t, filepath.Join(dir, "netns/cni-1"), "", 0o600)
	write(t, filepath.Join(dir, "cache/results/podnet-1-eth0"), cachedBy("1.3", string(pod.UID), "1",
		dir+"/netns/cni-1", "10.0.0.1"), 0o600)
	its := agenttest.RecordFor(pod, "1/1")
	its.ContainerID = "1"
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if got := r.Check(ctx, its); !got.Looked || !strings.Contains(got.Drift, "in time") {
		t.Errorf("%+v", got)
	}
}

// The installed plugin's CHECK is run if the agent may do so. Its result is distinguished from reasons why it could not
// run.
func TestCheck(t *testing.T) {
	const refuses = `echo '{"code": 105, "msg": "checking the packet rules: rule 3 is missing` +
		`; see: istio-pod-networkctl explain shop/cart"}'; exit 1`
	nothing := func(*record.Record) {}
	for name, c := range map[string]struct {
		mode              Mode
		script            string
		change            func(*record.Record)
		looked            bool
		drift, why, value string
	}{
		"the same": {Apply, "", nothing, true, "", "", ""},
		"drift":    {Apply, refuses, nothing, true, "checking the packet rules: rule 3 is missing", "", ""},
		"too many to read": {Apply, strings.Replace(refuses, "105", "101", 1), nothing, true,
			"checking the packet rules: rule 3 is missing", "", ""},
		"another error":  {Apply, strings.Replace(refuses, "105", "103", 1), nothing, false, "", "rule 3 is missing", ""},
		"a broken one":   {Apply, "echo oops >&2; exit 3", nothing, false, "", "exit status 3: oops", ""},
		"no rights":      {Off, "", nothing, false, "", "--repair=off", "repair: apply"},
		"deleting":       {Delete, "", nothing, false, "", "--repair=delete", "repair: apply"},
		"left untouched": {Apply, "", func(r *record.Record) { r.Decision = record.Untouched }, false, "", "untouched", ""},
		"iptables": {Apply, "", func(r *record.Record) { r.Backend = "iptables-nft" }, false, "", "iptables-nft",
			"backend: nftables"},
		"attached by Multus": {Apply, `grep -q '"name":"mesh"' "${0%/bin/*}/called" && [ "$CNI_IFNAME" = net1 ]`,
			func(r *record.Record) { r.IfName, r.Network = "net1", "mesh" }, true, "", "", ""},
		"an unknown sandbox": {Apply, "", func(r *record.Record) { r.ContainerID = "2" }, false, "", "does not know it", ""},
	} {
		r, events, dir := repairing(t, c.mode, c.script)
		pod := agenttest.Running("cart")
		write(t, filepath.Join(dir, "netns/cni-1"), "", 0o600)
		write(t, filepath.Join(dir, "cache/results/podnet-1-eth0"), cachedBy("1.3", string(pod.UID), "1",
			dir+"/netns/cni-1", "10.0.0.1"), 0o600)
		its := agenttest.RecordFor(pod, "1/1")
		its.ContainerID = "1"
		c.change(&its)
		got := r.Check(t.Context(), its)
		if got.Looked != c.looked || got.Drift != c.drift || !strings.Contains(got.Why, c.why) ||
			!strings.HasPrefix(got.Value, c.value) || (got.Why == "") != (c.why == "") || (got.Value == "") != (c.value == "") {
			t.Errorf("%s: %+v", name, got)
		}
		called, err := os.ReadFile(filepath.Join(dir, "called"))
		if ran := err == nil; ran != (c.looked || c.script != "") || ran && !strings.Contains(string(called),
			"CNI_COMMAND=CHECK\n") {
			t.Errorf("%s: called %t: %s", name, ran, called)
		}
		if all := sent(events); len(all) > 0 { // a check creates no Events
			t.Errorf("%s: %q", name, all)
		}
	}
}

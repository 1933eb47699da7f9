package patrol

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/flowcontrol"
)

// renewing returns a patrol of n pods with rules of another release. The plugin is a script.
func renewing(t *testing.T, n int, script string, namespaces ...string) (b *beat, dir string) {
	t.Helper()
	repairer, _, dir := repairing(t, Apply, "echo >>$(dirname $0)/../calls\n"+script)
	var pods []*corev1.Pod
	for i := range n {
		pods = append(pods, agenttest.Running(fmt.Sprintf("cart-%d", i)))
	}
	b = patrolling(t, pods...)
	for i, pod := range pods {
		r := agenttest.RecordFor(pod, fmt.Sprintf("%d/%d", i, i))
		r.RuleSetHash = "of another release"
		r.ContainerID, r.IfName = "c"+pod.Name, "eth0"
		b.records[pod.Name] = r
		write(t, filepath.Join(dir, "netns", pod.Name), "", 0o600)
		write(t, filepath.Join(dir, "cache/results", "podnet-"+pod.Name), cachedBy("1.3", string(pod.UID), r.ContainerID,
			filepath.Join(dir, "netns", pod.Name), "10.9.9.9"), 0o600) // the record names the sandbox
	}
	b.Repairer = repairer
	b.Renewer = NewRenewer(RenewConfig{
		Namespaces: namespaces, Plugin: repairer.Plugin, Repairer: repairer, Warner: b.Warner, Log: agenttest.Quiet(),
		Renewals: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "c"}, []string{"result"}),
	})
	repairer.Plugin = "/nonexistent" // the installed one, which may be of another release
	return b, dir
}

// calls returns how often the plugin was run.
func calls(t *testing.T, dir string) int {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "calls"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Count(string(data), "\n")
}

// Rules are renewed only if the operator has configured it. The plugin is told that it is a renewal, and the pod gets
// an Event.
func TestRenew(t *testing.T) {
	for name, c := range map[string]struct {
		namespaces []string
		want       bool
	}{
		"not asked": {nil, false}, "of another namespace": {[]string{"bank"}, false},
		"of this one": {[]string{"bank", "shop"}, true}, "of some": {[]string{"s*p"}, true}, "of all": {[]string{"*"}, true},
	} {
		b, dir := renewing(t, 1, "", c.namespaces...)
		b.round(t.Context(), time.Now())
		events := strings.Join(sent(b.events), "\n")
		if !strings.Contains(events, " "+eventOlder+" ") || strings.Contains(events, "as renewRules asks") != c.want ||
			strings.Contains(events, "Normal "+eventRenewed+" ") != c.want {
			t.Errorf("%s: Events %q", name, events)
		}
		got, counted := calls(t, dir), sum(t, b.Renewer.Renewals.WithLabelValues(renewed))
		if got != map[bool]int{true: 1}[c.want] || counted != float64(got) {
			t.Errorf("%s: renewed %d times, %g are counted", name, got, counted)
		}
		if !c.want {
			continue
		}
		called, err := os.ReadFile(filepath.Join(dir, "called"))
		await.Must(t, err)
		for _, line := range []string{"CNI_COMMAND=ADD\n", "CNI_CONTAINERID=ccart-0\n", "CNI_IFNAME=eth0\n",
			"CNI_NETNS=" + dir + "/netns/cart-0\n", ";ISTIO_POD_NETWORK_RENEW=true\n"} {
			if !strings.Contains(string(called), line) {
				t.Errorf("%s: %q is missing in\n%s", name, line, called)
			}
		}
	}
}

// An attachment by Multus is renewed, too, although the runtime's cache does not have it: in the network namespace of
// its sandbox.
func TestRenewAttached(t *testing.T) {
	b, dir := renewing(t, 1, "", "*")
	its := b.records["cart-0"]
	its.IfName, its.Network = "net1", "mesh"
	b.records["cart-0"] = its
	b.round(t.Context(), time.Now())
	called, err := os.ReadFile(filepath.Join(dir, "called"))
	await.Must(t, err)
	for _, part := range []string{"CNI_CONTAINERID=ccart-0\n", "CNI_IFNAME=net1\n", "CNI_NETNS=" + dir + "/netns/cart-0\n",
		`"name":"mesh"`} {
		if !strings.Contains(string(called), part) {
			t.Errorf("%q is missing in\n%s", part, called)
		}
	}
	if events := strings.Join(sent(b.events), "\n"); !strings.Contains(events, "Normal "+eventRenewed+" ") {
		t.Errorf("Events %q", events)
	}
}

// A pod is renewed at most once in a while, whatever the result, and the pods of a node one after the other.
func TestRenewIsBounded(t *testing.T) {
	b, dir := renewing(t, renewalsAtOnce+2, "", "*")
	b.Renewer.limit = flowcontrol.NewTokenBucketPassiveRateLimiter(1e-6, renewalsAtOnce) // for slow machines
	now := time.Now()
	for range 2 {
		if b.round(t.Context(), now); calls(t, dir) != renewalsAtOnce {
			t.Errorf("%d at once", calls(t, dir))
		}
	}
	b, dir = renewing(t, 2, "", "*")
	for _, later := range []time.Duration{0, time.Second, renewAgain - 1} {
		if b.round(t.Context(), now.Add(later)); calls(t, dir) != 2 {
			t.Errorf("after %s: %d", later, calls(t, dir))
		}
	}
	if b.round(t.Context(), now.Add(renewAgain)); calls(t, dir) != 4 {
		t.Errorf("at last: %d", calls(t, dir))
	}
}

// The reason why rules cannot be renewed is reported on the pod, and counted.
func TestRenewFails(t *testing.T) {
	for name, c := range map[string]struct {
		breaks func(b *beat, dir string) error
		script string
		want   string
	}{
		"the plugin refuses": {nil, `echo '{"code": 101, "msg": "renewing the packet rules", "details": "no room"}'; exit 1`,
			"renewing the packet rules: no room"},
		"no cache": {func(_ *beat, dir string) error { return os.RemoveAll(dir + "/cache/results") }, "",
			"reading libcni's"},
		"not cached": {func(_ *beat, dir string) error { return os.Remove(dir + "/cache/results/podnet-cart-0") }, "",
			"does not know"},
		"no sandbox": {func(_ *beat, dir string) error { return os.Remove(dir + "/netns/cart-0") }, "", "no such file"},
		"no plugin":  {func(b *beat, _ string) error { b.Renewer.Plugin = "/none"; return nil }, "", "running /none"},
	} {
		b, dir := renewing(t, 1, c.script, "shop")
		if c.breaks != nil {
			await.Must(t, c.breaks(b, dir))
		}
		b.round(t.Context(), time.Now())
		events := strings.Join(sent(b.events), "\n")
		if !strings.Contains(events, "Warning "+eventRenewal+" ") || !strings.Contains(events, c.want) ||
			strings.Contains(events, eventRenewed) || len(b.Older()) != 1 ||
			sum(t, b.Renewer.Renewals.WithLabelValues(failed)) != 1 {
			t.Errorf("%s: %q is older; Events %q", name, b.Older(), events)
		}
	}
}

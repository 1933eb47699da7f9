package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/plugin/annotation"
)

// The primary CNI rewrites, renames, removes and restores its configuration, and another configuration that sorts
// before it appears, while mesh pods come and go. A pod that starts while the plugin is not chained waits, and is
// repaired.
func TestPrimaryMischief(t *testing.T) {
	r := newRig(t)
	r.node = nodes.Node("node-" + string(cluster.Debian)) // here our entry is in the primary's own file
	r.installed()
	r.seen(r.appPod("plain"))
	conf := func(name string) string { return r.node.Path(filepath.Join(cluster.ConfDir, name)) }
	primary := []byte(r.node.Primary(cluster.DualStack))
	other, err := otherNetwork(r.node)
	must(r, err)
	r.Cleanup(func() {
		_ = os.Remove(conf("10-renamed.conflist"))
		_ = os.Remove(conf("05-other.conflist"))
		r.writeNetwork(string(primary))
		r.healthy()
	})
	for _, mischief := range []struct {
		name string
		do   func(round int)
	}{
		{"rewritten", func(int) {
			must(r, replace(r.node.Conflist(), primary))
			time.Sleep(300 * time.Millisecond)
		}},
		{"renamed", func(round int) {
			names := []string{r.node.Conflist(), conf("10-renamed.conflist")}
			must(r, os.Rename(names[round%2], names[(round+1)%2]))
			time.Sleep(2 * time.Second)
		}},
		{"removed", func(round int) {
			for _, name := range []string{r.node.Conflist(), conf("10-renamed.conflist")} {
				_ = os.Remove(name)
			}
			time.Sleep(500 * time.Millisecond)
			must(r, replace(r.node.Conflist(), primary))
			// The kubelet checks the network every five seconds, and syncs no pod while the check fails. Vary the pause, so that
			// it does not always check while the file is missing.
			time.Sleep(2*time.Second + time.Duration(round%7)*300*time.Millisecond)
		}},
		{"one that sorts earlier", func(round int) {
			if round%2 == 0 {
				must(r, replace(conf("05-other.conflist"), other))
			} else {
				must(r, os.Remove(conf("05-other.conflist")))
			}
			time.Sleep(2 * time.Second)
		}},
	} {
		rounds := 0
		stop := r.while(func(round int) { mischief.do(round); rounds++ })
		r.come(6, 3)
		stop()
		r.clear(r.namespace)
		r.note("%s %d times", mischief.name, rounds)
	}
	r.note("%s repaired", r.metric(`pod_repairs_total{result="applied"}`))
}

// metric returns a metric of the agent on the rig's node. The name has no prefix.
func (r *rig) metric(name string) string { return r.series("istio_pod_network_" + name) }

// series returns the value of a series of that agent, or "?".
func (r *rig) series(name string) string {
	for line := range strings.Lines(metrics(r.node.Address())) {
		if value, is := strings.CutPrefix(line, name+" "); is {
			return strings.TrimSpace(value)
		}
	}
	return "?"
}

// otherNetwork returns the configuration of another network for a node's pods, and adds routes to it.
func otherNetwork(n *cluster.Node) ([]byte, error) {
	for _, route := range []string{
		fmt.Sprintf("ip route replace 10.245.%d.0/24 via %s", n.Number, n.Address()),
		fmt.Sprintf("ip -6 route replace fd00:245:0:%d::/64 via %s", n.Number, n.Address6()),
	} {
		f := strings.Fields(route)
		if out, err := exec.Command(f[0], f[1:]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", route, err, out)
		}
	}
	return []byte(strings.NewReplacer("podnet", "othernet", "cni0", "cni1", "10.244.", "10.245.", "fd00:244:",
		"fd00:245:").Replace(n.Primary(cluster.DualStack))), nil
}

// A drop-in is forced on a runtime that does not read drop-ins. Mesh pods without rules are noticed, reported and
// repaired, and the agent falls back to a splice.
func TestForcedDropIn(t *testing.T) {
	r := newRig(t)
	r.node = nodes.Node("node-" + string(cluster.Debian))
	r.uninstalled()
	r.installed("cni.dropIn=always")
	hasty := r.meshPod("hasty")
	hasty.Spec.InitContainers = nil
	r.seen(hasty)
	r.create(r.meshPod("cart-0"))
	r.eventually("an Event says that a pod was made without the plugin",
		func() bool { return strings.Contains(events(r.namespace), " MeshBypassed ") })
	r.throughSidecar("cart-0")
	r.marked("cart-0")
	r.eventually("the agent is ready again, with a splice", func() bool {
		_, body := readyz(r.node.Address())
		return strings.Contains(body, "(spliced)") && !strings.Contains(body, "[-]")
	})
	if n := r.metric("bypasses_total"); n == "0" || n == "?" {
		t.Errorf("%s bypasses", n)
	}
	const repaired = "ran the plugin for a pod whose network was made without it"
	r.eventually("the agent says that it has repaired the first pod", func() bool { // its app was never held
		return strings.Contains(r.agentsSay(r.namespace+"/hasty"), repaired)
	})
	r.create(r.meshPod("cart-1"))
	r.throughSidecar("cart-1")
	if said := r.agentsSay(r.namespace + "/cart-1"); strings.Contains(said, repaired) {
		t.Errorf("the next pod had to be repaired too: %s", said)
	}
}

// foreign is the entry of a plugin that adds the rules of Istio's own tools.
const foreign = `{"type": "foreign-rules"}`

// The rules of Istio's own tools are already in the pod's network namespace. None of ours are added, the mark and an
// Event say so, and the sidecar serves the pod by the foreign rules.
func TestForeignRulesFirst(t *testing.T) {
	onEveryNode(t, func(r *rig) {
		r.installed()
		r.seen(r.appPod("plain"))
		r.network(r.node.Primary(cluster.DualStack, foreign))
		r.create(r.meshPod("cart-0"))
		r.throughSidecar("cart-0")
		a := r.pod("cart-0").Annotations
		if a[annotation.Status] != annotation.NotRequired || a["pod-network-controller.istio.io/reason"] != "foreign-rules" {
			r.Errorf("marked %v", a)
		}
		r.eventually("an Event says so", func() bool { return strings.Contains(events(r.namespace), "cart-0 ForeignRules") })
		if rules := r.ruleset("cart-0"); strings.Contains(rules, "istio-pod-network") ||
			!strings.Contains(rules, "ISTIO_OUTPUT") {
			r.Errorf("the rules are\n%s", rules)
		}
	})
}

// Another mesh's plugin is chained after ours. Both stay in the chain, once each, and nothing bypasses the sidecar.
func TestForeignPluginLater(t *testing.T) {
	onEveryNode(t, func(r *rig) {
		r.installed()
		r.seen(r.appPod("plain"))
		var conflist struct {
			CNIVersion string            `json:"cniVersion"`
			Name       string            `json:"name"`
			Plugins    []json.RawMessage `json:"plugins"`
		}
		data, err := os.ReadFile(r.node.Conflist())
		must(r, err)
		must(r, json.Unmarshal(data, &conflist))
		conflist.Plugins = append(conflist.Plugins, json.RawMessage(foreign))
		data, err = json.Marshal(conflist)
		must(r, err)
		r.network(string(data))
		r.create(r.meshPod("cart-0"))
		r.throughSidecar("cart-0")
		r.eventually("the pod has a mark", func() bool { return r.pod("cart-0").Annotations[annotation.Status] != "" })
		rules := r.ruleset("cart-0")
		if ours, theirs := strings.Count(rules, "table ip istio-pod-network"),
			strings.Count(rules, "chain ISTIO_OUTPUT {"); ours > 1 || theirs != 2 {
			r.Errorf("%d tables of ours, %d chains of theirs:\n%s", ours, theirs, rules)
		}
		dropIn, _ := os.ReadFile(r.node.Path(filepath.Join(cluster.ConfDir, "podnet", "99-istio-pod-network.conf")))
		data, err = os.ReadFile(r.node.Conflist())
		must(r, err)
		if all := string(data) + string(dropIn); strings.Count(all, `"istio-pod-network"`) != 1 ||
			strings.Count(all, `"foreign-rules"`) != 1 {
			r.Errorf("the chain is %s %s", data, dropIn)
		}
	})
}

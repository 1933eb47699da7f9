package node

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/istio-pod-network/controller/conformance/crio"
	"github.com/istio-pod-network/controller/conformance/crio/wire"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/plugin/facts"
)

// A pod that is opted in after its network was made keeps that network when CRI-O restarts, whether or not CRI-O passes
// annotations, and with or without an agent.
func TestCRIOOptedInLater(t *testing.T) {
	for _, c := range []struct {
		crioCase
		selection string
		optIn     func(*rig)
	}{
		{crioCases()[0], "injected", (*rig).annotatePods},
		{crioCases()[2], "annotated", (*rig).optNamespaceIn},
	} {
		t.Run(fmt.Sprint(c.crioCase, " ", c.selection), func(t *testing.T) {
			r := onCRIO(t, c.release)
			r.entry["selection"] = c.selection
			r.chain(c.crioCase)
			pod := r.podOf("cart", meshAnnotations()) // with a sidecar
			pod.Annotations = map[string]string{"example.com/of": "nobody"}
			s := r.start(r.create(pod))
			c.optIn(r.rig)
			r.eventually("the agent knows", func() bool {
				known, err := facts.Ask(r.ctx, r.socket(), facts.Request{Namespace: r.namespace, Name: "cart", UID: s.Pod.UID})
				return err == nil && len(known.NamespaceAnnotations)+len(known.Annotations) > 0
			})
			r.forget()
			r.cri.Restart()
			r.addressed(s)
			r.wantCalled(plugin, s, "CHECK")
			r.agent.end(syscall.SIGTERM)
			r.cri.Restart()
			r.addressed(s)
			r.stop(s)
			r.nothing()
		})
	}
}

// Before 1.29 CRI-O passes no annotations, so without an agent nothing is known of a pod. The plugin refuses it, or
// lets it start without rules if the entry says so. The pod keeps its network when CRI-O restarts.
func TestCRIOWithoutAgent(t *testing.T) {
	r := onCRIO(t, crio.Releases[0])
	must(t, os.Symlink(filepath.Join(isolated.BinDir(), plugin), r.path("bin/"+plugin)))
	r.entry["agentSocket"] = ""
	r.spliced()
	s, err := r.cri.Run(of(r.create(r.podOf("refused", nil))))
	if err == nil || !strings.Contains(err.Error(), "agentSocket") || !strings.Contains(err.Error(), "auxFailOpen") {
		t.Errorf("a pod of which nothing is known: %v", err)
	}
	if got := r.called(plugin, s.ID); got != "ADD DEL" || len(r.leases()) > 0 {
		t.Errorf("called by %q; leases %q", got, r.leases())
	}
	r.remove("refused")
	r.entry["auxFailOpen"] = true
	r.spliced()
	sandboxes := []wire.Sandbox{r.plain("plain"), r.start(r.mesh("cart"))}
	r.forget()
	r.cri.Restart()
	r.addressed(sandboxes...)
	for _, s := range sandboxes {
		r.wantCalled(plugin, s, "CHECK")
		r.stop(s)
	}
	r.nothing()
}

// spliced puts the entry into the primary's file without an agent.
func (r *crioRig) spliced() {
	r.Helper()
	entry, err := json.Marshal(r.entry)
	must(r, err)
	list := r.bridge("10-pods.conflist", "1.0.0")
	r.write("net.d/10-pods.conflist", strings.TrimSuffix(list, "]}")+", "+string(entry)+"]}")
	r.cri.Restart() // so that the test need not wait for inotify events
	r.chained(true)
}

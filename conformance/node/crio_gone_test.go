package node

import (
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/istio-pod-network/controller/conformance/crio/wire"
)

// The plugin is uninstalled under CRI-O, and the agents are gone right afterwards, as with Helm. Existing pods, in the
// mesh or not, keep their addresses when CRI-O restarts. They can be deleted, and their addresses are released. New
// pods never call the plugin. If CRI-O has cached our entry for a pod, the binary stays for it, and is removed with the
// last such pod. With a drop-in it is removed at once.
func TestCRIOUninstalledAgentsGone(t *testing.T) {
	cases := crioCases()
	for _, c := range []struct {
		crioCase
		repair string
	}{{cases[0], "off"}, {cases[4], "apply"}} {
		t.Run(c.String(), func(t *testing.T) {
			r := c.onto(t)
			plain, cart := r.plain("plain"), r.meshed(r.mesh("cart"), "eth0")
			r.agent.end(syscall.SIGTERM)
			uninstalling := append([]string{"--uninstall", "--repair=" + c.repair}, r.flags...)
			r.startAgent(uninstalling...)
			if c.way == splice {
				r.readySays("2 sandboxes are there, made with the plugin")
			} else {
				r.readySays("binary and records are gone")
			}
			r.agent.end(syscall.SIGKILL)
			r.chained(false)
			if left := r.exists("bin/" + plugin); left != (c.way == splice) {
				t.Errorf("the binary is there: %t", left)
			}
			r.forget()
			r.cri.Restart() // without an agent to ask
			r.addressed(plain, cart)
			later := r.plain("later")
			for _, s := range []wire.Sandbox{plain, cart, later} {
				r.stop(s)
				if got := r.called("bridge", s.ID); !strings.HasSuffix(got, "DEL") {
					t.Errorf("the address of %s was not released: its plugin was called by %q", s.Pod.Name, got)
				}
			}
			if got := r.called(plugin, later.ID); got != "" {
				t.Errorf("the plugin was called by %q for a pod that came later", got)
			}
			r.addressed()
			if leases, cached := r.leases(), r.cri.Cached(); len(leases) > 0 || len(cached) > 0 {
				t.Errorf("left: addresses %q, in libcni's cache %q", leases, cached)
			}
			r.startAgent(uninstalling...)
			r.readySays("binary and records are gone")
			if records, _ := r.store.List(); r.exists("bin/"+plugin) || len(records) > 0 {
				t.Errorf("left: %d records; the binary is there: %t", len(records), r.exists("bin/"+plugin))
			}
		})
	}
}

// readySays waits until the agent is ready with that text.
func (r *rig) readySays(words string) {
	r.Helper()
	r.eventually("ready: "+words, func() bool {
		status, body := r.get("/readyz")
		return status == http.StatusOK && strings.Contains(body, words)
	})
}

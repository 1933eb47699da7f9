package node

import (
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/istio-pod-network/controller/conformance/crio/wire"
)

// The plugin is removed from a node with pods on it. They are not changed, also when CRI-O restarts, and each can be
// deleted with its address. When no pod is left whose network has the plugin, nothing of the plugin is left.
func TestCRIOUninstall(t *testing.T) {
	for i, repair := range []string{"off", "delete", "apply"} {
		// a .conf with the second generation of libcni, a splice and a drop-in with the third
		c := crioCases()[3+(i+2)%3]
		t.Run(c.String()+" repair "+repair, func(t *testing.T) {
			r := c.onto(t, "--repair="+repair)
			plain, cart := r.plain("plain"), r.meshed(r.mesh("cart"), "eth0")
			rules := r.rules(cart)
			r.agent.end(syscall.SIGTERM)
			r.startAgent(append(r.flags, "--uninstall")...)
			r.eventually("the plugin is out of the network", func() bool {
				status, body := r.get("/readyz")
				return status == http.StatusOK && strings.Contains(body, "[+] uninstalled: ")
			})
			r.chained(false)
			late := r.plain("late")
			r.wantCalled(plugin, late, "")
			r.cri.Restart()
			r.addressed(plain, cart, late)
			if now := r.rules(cart); now != rules {
				t.Errorf("the rules of a pod that runs are\n%s\nand were\n%s", now, rules)
			}
			r.forget()
			for _, s := range []wire.Sandbox{plain, cart, late} {
				r.stop(s)
				r.wantCalled("bridge", s, "DEL")
			}
			r.eventually("the binary is gone, and with it the records", func() bool {
				records, _ := r.store.List()
				return !r.exists("bin/"+plugin) && len(records) == 0
			})
			r.nothing()
		})
	}
}

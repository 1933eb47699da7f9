package agent

import (
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/plugin/record"
)

// The agent is not ready while the plugin's stored answer to STATUS names a problem.
func TestBackendProblem(t *testing.T) {
	a := &agent{
		options: options{store: record.Store{Dir: t.TempDir()}}, pods: new(kube.Pods), namespaces: new(kube.Namespaces),
	}
	for _, why := range []string{"", "backend iptables is not usable: no ip6tables-restore on this host", ""} {
		if err := a.store.SetProblem(why); err != nil {
			t.Fatal(err)
		}
		for _, check := range a.ready() {
			if check.Name != "backend" {
				continue
			}
			if ready, state := check.Run(); ready != (why == "") || !strings.Contains(state, why) {
				t.Errorf("with %q: %t, %s", why, ready, state)
			}
		}
	}
}

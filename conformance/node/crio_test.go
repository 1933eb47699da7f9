package node

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/istio-pod-network/controller/conformance/crio"
	"github.com/istio-pod-network/controller/conformance/crio/wire"
)

// crioCase is a network on a release of CRI-O.
type crioCase struct {
	release crio.Release
	file    string // of the primary CNI
	version string // of the network
	flags   []string
	way     string // how the plugin is chained
}

const (
	splice = "splice"
	dropIn = "drop-in"
)

func crioCases() []crioCase {
	old, middle, new := crio.Releases[0], crio.Releases[1], crio.Releases[2]
	return []crioCase{
		{old, "10-pods.conflist", "1.0.0", nil, splice},
		{old, "10-pods.conf", "0.3.1", nil, splice},
		{middle, "10-pods.conflist", "0.4.0", nil, splice},
		{middle, "10-pods.conf", "1.0.0", nil, splice},
		{new, "10-pods.conflist", "1.1.0", nil, dropIn},
		{new, "10-pods.conflist", "1.1.0", []string{"--drop-in=never"}, splice},
	}
}

func (c crioCase) String() string {
	return fmt.Sprint(c.release, " ", c.version, " ", c.file, " ", c.way)
}

// onto returns a node of the case, with the agent and with the plugin in its network.
func (c crioCase) onto(t testing.TB, flags ...string) *crioRig {
	t.Helper()
	r := onCRIO(t, c.release)
	r.chain(c, flags...)
	return r
}

// chain starts the agent, and waits until it has chained the plugin.
func (r *crioRig) chain(c crioCase, flags ...string) {
	r.Helper()
	r.flags = append(append(r.flags, c.flags...), flags...)
	r.write("net.d/"+c.file, r.bridge(c.file, c.version))
	r.startAgent(r.flags...)
	r.ready()
	r.chained(true)
	if got := r.exists("net.d/pods/99-istio-pod-network.conf"); got != (c.way == dropIn) {
		r.Errorf("there is a drop-in: %t, want it chained by %s", got, c.way)
	}
}

// checks returns CHECK if CRI-O calls it for the plugin. It does not with a drop-in, which libcni's cache does not
// have.
func (c crioCase) checks() string {
	if c.way == dropIn || c.version < "0.4.0" {
		return ""
	}
	return "CHECK"
}

// after joins two verbs, of which the first may be empty.
func after(verb, next string) string { return strings.TrimSpace(verb + " " + next) }

// TestCRIO is the life of pods with CRI-O, with each generation of libcni, each way to chain the plugin, and a .conf.
// Every call by CRI-O is made, succeeds, and has the right input.
func TestCRIO(t *testing.T) {
	for _, c := range crioCases() {
		t.Run(c.String(), func(t *testing.T) {
			r := c.onto(t)
			r.versionAsked()
			plain, cart := r.plain("plain"), r.meshed(r.mesh("cart"), "eth0")
			for _, s := range []wire.Sandbox{plain, cart} {
				r.wantCalled(plugin, s, after("ADD", c.checks()))
				r.told(s)
			}
			r.refused()
			r.restarted(c, plain, cart)
			r.forget()
			r.stop(plain)
			r.stop(cart)
			for _, s := range []wire.Sandbox{plain, cart} {
				r.wantCalled(plugin, s, map[string]string{splice: "DEL", dropIn: ""}[c.way])
				r.wantCalled("bridge", s, "DEL")
			}
			r.nothing()
			r.rebooted(c)
			if c.way == splice {
				r.failingDEL()
			}
		})
	}
}

// versionAsked fails the test unless CRI-O called VERSION when the plugin came.
func (r *crioRig) versionAsked() {
	r.Helper()
	r.called("", "")
	if !slices.ContainsFunc(r.calls, func(c wire.Call) bool {
		return c.Verb == "VERSION" && c.Plugin == plugin && c.Error == ""
	}) {
		r.Error("nobody has asked the plugin for its versions")
	}
}

// told fails the test unless the plugin got what CRI-O passes for the pod.
func (r *crioRig) told(s wire.Sandbox) {
	r.Helper()
	args := fmt.Sprintf("IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;K8S_POD_INFRA_CONTAINER_ID=%s;"+
		"K8S_POD_UID=%s", s.Pod.Namespace, s.Pod.Name, s.ID, s.Pod.UID)
	for _, c := range r.calls {
		if c.Plugin != plugin || c.ContainerID != s.ID {
			continue
		}
		var config struct {
			RuntimeConfig map[string]map[string]string
			PrevResult    struct{ Interfaces []struct{ Sandbox string } }
		}
		must(r, json.Unmarshal(c.Config, &config))
		annotations := config.RuntimeConfig["io.kubernetes.cri.pod-annotations"]
		if c.Args != args || c.NetNS != s.NetNS || !slices.ContainsFunc(config.PrevResult.Interfaces,
			func(i struct{ Sandbox string }) bool { return i.Sandbox == s.NetNS }) ||
			r.cri.RelaysAnnotations() != maps.Equal(annotations, s.Pod.Annotations) {
			r.Errorf("%s of %s: %+v with %s", c.Verb, s.Pod.Name, c, c.Config)
		}
	}
}

// refused is a mesh pod that the plugin refuses. CRI-O removes its sandbox.
func (r *crioRig) refused() {
	r.Helper()
	before := len(r.leases())
	wrong := r.podOf("wrong", meshAnnotations())
	wrong.Annotations["traffic.sidecar.istio.io/excludeOutboundPorts"] = "70000"
	s, err := r.cri.Run(of(r.create(wrong)))
	if err == nil || !strings.Contains(err.Error(), "70000") {
		r.Errorf("a pod with a wrong annotation starts: %v", err)
	}
	if got := r.called(plugin, s.ID); got != "ADD DEL" || len(r.leases()) != before {
		r.Errorf("called by %q; leases %q", got, r.leases())
	}
	r.remove("wrong")
}

// restarted restarts CRI-O. All sandboxes keep their addresses, and GC removes nothing of them.
func (r *crioRig) restarted(c crioCase, all ...wire.Sandbox) {
	r.Helper()
	r.forget()
	r.cri.Restart()
	r.addressed(all...)
	for _, s := range all {
		r.wantCalled(plugin, s, c.checks())
	}
	if asks := c.release.Asks() && c.version >= "1.1.0"; asks {
		r.eventually("STATUS and GC", func() bool { return r.called(plugin, "") != "" && r.asked("STATUS") && r.asked("GC") })
	} else if r.asked("STATUS") || r.asked("GC") {
		r.Error("STATUS and GC have been called")
	}
	if records, errs := r.store.List(); len(records) != 1 || len(errs) > 0 {
		r.Errorf("%d records: %v", len(records), errs)
	}
}

// asked reports whether the plugin was called with the verb and succeeded.
func (r *crioRig) asked(verb string) bool {
	return slices.ContainsFunc(r.calls, func(c wire.Call) bool {
		return c.Plugin == plugin && c.Verb == verb && c.Error == ""
	})
}

// rebooted reboots the node with pods on it. CRI-O comes back with the old sandboxes. Their network namespaces are
// gone, and so are the records, which are on a tmpfs.
func (r *crioRig) rebooted(c crioCase) {
	r.Helper()
	plain, cart := r.plain("plain-before"), r.meshed(r.mesh("cart-before"), "eth0")
	r.agent.end(syscall.SIGKILL)
	r.forget()
	r.cri.Reboot(func() { must(r, os.RemoveAll(r.store.Dir)) })
	for _, s := range []wire.Sandbox{plain, cart} {
		r.wantCalled(plugin, s, map[string]string{splice: "DEL", dropIn: ""}[c.way])
		r.wantCalled("bridge", s, "DEL")
		r.remove(s.Pod.Name)
	}
	r.nothing()
	r.startAgent(r.flags...)
	r.ready()
	r.stop(r.meshed(r.mesh("cart-after"), "eth0"))
}

// failingDEL shows the effect of a missing plugin binary. Before 1.34 the pod cannot be deleted until the binary is
// back. Since then its address is lost, because the primary CNI is never called to release it.
func (r *crioRig) failingDEL() {
	r.Helper()
	s := r.plain("stuck")
	r.agent.end(syscall.SIGTERM)
	must(r, os.Rename(r.path("bin/"+plugin), r.path("aside")))
	if err := r.cri.Stop(s.ID); err == nil || !strings.Contains(err.Error(), "failed to find plugin") {
		r.Errorf("without the plugin: %v", err)
	}
	if err := r.cri.Stop(s.ID); (err == nil) != r.cri.Forgets() {
		r.Errorf("without the plugin, once more: %v", err)
	}
	must(r, os.Rename(r.path("aside"), r.path("bin/"+plugin)))
	must(r, r.cri.Stop(s.ID))
	if leaked := len(r.leases()) > 0; leaked != r.cri.Forgets() {
		r.Errorf("addresses left: %q", r.leases())
	}
	r.remove("stuck")
}

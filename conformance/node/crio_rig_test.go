package node

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/crio"
	"github.com/istio-pod-network/controller/conformance/crio/wire"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/conformance/internal/sandbox"
	"github.com/istio-pod-network/controller/plugin/record"
	corev1 "k8s.io/api/core/v1"
)

const plugin = "istio-pod-network"

// crioRig is a node whose runtime is CRI-O. The test plays the kubelet.
type crioRig struct {
	*rig
	cri   *crio.Runtime
	calls []wire.Call // calls that the test has read
	flags []string    // the agent's
	named string      // Multus's network that mesh pods name
}

// onCRIO returns a node without a network.
func onCRIO(t testing.TB, release crio.Release) *crioRig {
	t.Helper()
	r := newRig(t)
	r.setRuntime(release.Version())
	for _, name := range []string{"bridge", "host-local", "loopback", "multus", "passthru"} { // the agent installs ours
		must(t, os.Symlink(filepath.Join(isolated.BinDir(), name), r.path("bin/"+name)))
	}
	// from CRI-O's package; it is never the pods' network
	r.write("net.d/99-loopback.conflist", `{"cniVersion": "1.0.0", "name": "loopback", "plugins": [{"type": "loopback"}]}`)
	// with a fixed address, because the bridge plugin's CHECK compares it
	must(t, exec.Command("ip", "link", "add", r.link(), "address", "02:00:00:00:00:01", "type", "bridge").Run())
	cri := crio.Start(t, release, r.dir, wire.Config{ConfDir: r.path("net.d"), BinDirs: []string{r.path("bin")}})
	return &crioRig{rig: r, cri: cri,
		flags: []string{"--cni-cache-dir=" + r.path("cache"), "--netns-dir=" + r.path("netns"), "--sweep-after=500ms"}}
}

// write writes a file below the rig's directory.
func (r *rig) write(name, text string) {
	r.Helper()
	must(r, os.MkdirAll(filepath.Dir(r.path(name)), 0o755))
	must(r, os.WriteFile(r.path(name), []byte(text), 0o644))
}

// link returns the name of the node's bridge.
func (r *rig) link() string { return fmt.Sprint("crio", rigs) }

// bridge returns the primary CNI's configuration: a single plugin, or for a .conflist a list.
func (r *crioRig) bridge(file, version string) string {
	plugin := fmt.Sprintf(`"type": "bridge", "bridge": %q, "ipam": {"type": "host-local", "dataDir": %q,
		"ranges": [[{"subnet": "10.93.%d.0/24"}]]}`, r.link(), r.path("ipam"), rigs)
	head := fmt.Sprintf(`"cniVersion": %q, "name": "pods"`, version)
	if filepath.Ext(file) == ".conflist" {
		return fmt.Sprintf(`{%s, "plugins": [{%s}]}`, head, plugin)
	}
	return fmt.Sprintf(`{%s, %s}`, head, plugin)
}

// chained waits until the network of new pods has the plugin, or does not have it.
func (r *crioRig) chained(want bool) {
	r.Helper()
	r.eventually(fmt.Sprint("CRI-O has the plugin in its network: ", want), func() bool {
		network := r.cri.Network()
		return network.Name != "" && slices.Contains(network.Plugins, plugin) == want
	})
}

// of returns a pod as the kubelet passes it to CRI-O.
func of(pod *corev1.Pod) wire.Pod {
	annotations := map[string]string{"kubernetes.io/config.source": "api"}
	maps.Copy(annotations, pod.Annotations)
	return wire.Pod{Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID), Annotations: annotations}
}

// start makes the sandbox of a pod.
func (r *crioRig) start(pod *corev1.Pod) wire.Sandbox {
	r.Helper()
	s, err := r.cri.Run(of(pod))
	must(r, err)
	if len(s.Addresses) == 0 {
		r.Errorf("%s has no address", pod.Name)
	} else {
		r.status(pod, corev1.PodStatus{Phase: corev1.PodPending, PodIP: s.Addresses[0],
			PodIPs: []corev1.PodIP{{IP: s.Addresses[0]}}})
	}
	return s
}

// plain makes a pod outside the mesh with its sandbox.
func (r *crioRig) plain(name string) wire.Sandbox {
	r.Helper()
	s := r.start(r.create(r.podOf(name, nil)))
	if rules := r.rules(s); rules != "" {
		r.Errorf("rules in %s:\n%s", name, rules)
	}
	return s
}

// meshed makes the sandbox of a mesh pod, and checks that it has rules and that its wait succeeds.
func (r *crioRig) meshed(pod *corev1.Pod, ifName string) wire.Sandbox {
	r.Helper()
	s := r.start(pod)
	rec, err := r.store.Get(s.ID, ifName)
	must(r, err)
	if rec.Decision != record.Redirect || !strings.Contains(r.rules(s), "table ip "+plugin) {
		r.Errorf("%s: %+v, with the rules\n%s", pod.Name, rec, r.rules(s))
	}
	r.marked(pod.Name, rec)
	waiting := &podSandbox{rig: r.rig, pod: pod, Sandbox: sandbox.Sandbox{Pod: pod, ID: s.ID, NetNS: s.NetNS}}
	if status, out := waiting.wait("--mode=any", "--timeout=60"); status != 0 {
		r.Errorf("the wait of %s ends with %d: %s", pod.Name, status, out)
	}
	return s
}

// rules returns the packet rules in a sandbox.
func (r *crioRig) rules(s wire.Sandbox) (listing string) {
	r.Helper()
	must(r, isolated.InNetNS(s.NetNS, func() error {
		out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
		listing = string(out)
		return err
	}))
	return listing
}

// stop ends a pod: its sandbox, then its object.
func (r *crioRig) stop(s wire.Sandbox) {
	r.Helper()
	must(r, r.cri.Stop(s.ID))
	r.remove(s.Pod.Name)
}

// addressed fails the test unless CRI-O has exactly these sandboxes, all with their addresses.
func (r *crioRig) addressed(want ...wire.Sandbox) {
	r.Helper()
	got := r.cri.Sandboxes()
	if len(got) != len(want) {
		r.Errorf("%d sandboxes, want %d", len(got), len(want))
	}
	for _, s := range want {
		if !slices.Equal(got[s.ID].Addresses, s.Addresses) || len(s.Addresses) == 0 {
			r.Errorf("CRI-O takes %q for the addresses of %s, want %q", got[s.ID].Addresses, s.Pod.Name, s.Addresses)
		}
	}
}

// leases returns the addresses that the primary CNI has assigned.
func (r *crioRig) leases() []string {
	r.Helper()
	found, err := filepath.Glob(r.path("ipam/pods/10.*"))
	must(r, err)
	return found
}

// nothing fails the test if a sandbox or anything of one is left.
func (r *crioRig) nothing() {
	r.Helper()
	r.addressed()
	if leases, cached := r.leases(), r.cri.Cached(); len(leases) > 0 || len(cached) > 0 {
		r.Errorf("left: addresses %q, in libcni's cache %q", leases, cached)
	}
	r.eventually("all records are gone", func() bool {
		records, errs := r.store.List()
		return len(records) == 0 && len(errs) == 0
	})
}

// called returns the verbs with which a plugin was called since forget, without VERSION: for one sandbox, or for all if
// id is "".
func (r *crioRig) called(name, id string) string {
	r.Helper()
	r.calls = append(r.calls, r.cri.Calls()...)
	return crio.Of(r.calls, name, id)
}

// forget drops the calls so far.
func (r *crioRig) forget() { r.Helper(); r.cri.Calls(); r.calls = nil }

// wantCalled fails the test unless a plugin was called for a sandbox with these verbs, and all succeeded.
func (r *crioRig) wantCalled(name string, s wire.Sandbox, verbs string) {
	r.Helper()
	if got := r.called(name, s.ID); got != verbs {
		r.Errorf("%s was called for %s by %q, want %q", name, s.Pod.Name, got, verbs)
	}
	for _, c := range r.calls {
		if c.ContainerID == s.ID && c.Error != "" {
			r.Errorf("%s of %s for %s: %s", c.Verb, c.Plugin, s.Pod.Name, c.Error)
		}
	}
}

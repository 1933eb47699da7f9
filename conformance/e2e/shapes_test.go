package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
)

// Three shapes of a node, with a kubelet; conformance/shapes tests all shapes. First, the configuration belongs to
// another user. Second, it has the oldest published version of CNI. Third, it asks for a version that does not exist
// yet, so that the plugin cannot be chained: the agent says why, pods outside the mesh start, and a mesh pod waits
// until the node has another configuration.
func TestShapes(t *testing.T) {
	r := newRig(t)
	r.node = nodes.Node("node-" + string(cluster.Debian)) // here our entry is in the primary's own file
	r.installed()
	r.seen(r.appPod("plain"))
	primary := r.node.Primary(cluster.DualStack)
	_, rest, _ := strings.Cut(primary, `"cniVersion": "`)
	version, _, _ := strings.Cut(rest, `"`)
	dir := r.node.Path(cluster.ConfDir)
	r.Cleanup(func() {
		must(r, os.Chown(dir, 0, 0))
		r.writeNetwork(primary)
		r.healthy()
	})
	serves := func(shape string) {
		r.create(r.appPod("plain-" + shape))
		r.running("plain-" + shape)
		r.create(r.meshPod("mesh-" + shape))
		r.throughSidecar("mesh-" + shape)
		r.marked("mesh-" + shape)
	}

	const kube = 997 // the user of Kubespray
	must(r, os.Chown(dir, kube, kube))
	r.writeNetworkAs(kube, primary)
	r.chained()
	serves("owner")
	if info, err := os.Stat(r.node.Conflist()); err != nil || info.Sys().(*syscall.Stat_t).Uid != kube {
		r.Errorf("the configuration is somebody else's now: %+v %v", info, err)
	}

	r.writeNetworkAs(kube, strings.Replace(primary, version, "0.3.0", 1)) // as in Azure CNI and Antrea
	r.chained()
	serves("version")

	r.writeNetworkAs(kube, strings.Replace(primary, "{", fmt.Sprintf(`{"cniVersions": [%q, "9.0.0"],`, version), 1))
	r.eventually("the agent says why it chains nothing", func() bool {
		status, body := readyz(r.node.Address())
		return status == http.StatusServiceUnavailable &&
			strings.Contains(body, `the plugin does not speak the version of that network: "9.0.0"`)
	})
	must(r, r.node.RestartRuntime())
	r.create(r.appPod("plain-later"))
	r.running("plain-later")
	r.create(r.meshPod("mesh-later"))
	r.eventually("its wait runs", func() bool { return r.says("mesh-later", "istio-validation") != "" })
	r.stillWaits("mesh-later")
	must(r, r.ownersWrite(0, primary))
	r.chained()
	r.throughSidecar("mesh-later")
}

// writeNetworkAs writes the configuration as a primary CNI that runs as a user. It first deletes the rig's pods and the
// bridges.
func (r *rig) writeNetworkAs(user int, config string) {
	r.Helper()
	r.clear(r.namespace)
	must(r, r.node.RemoveBridges())
	must(r, r.ownersWrite(user, config))
}

// ownersWrite replaces the primary's configuration by a rename. The file belongs to the user.
func (r *rig) ownersWrite(user int, config string) error {
	temp := filepath.Join(filepath.Dir(r.node.Conflist()), ".owners")
	if err := os.WriteFile(temp, []byte(config), 0o644); err != nil {
		return err
	}
	if err := os.Chown(temp, user, user); err != nil {
		return err
	}
	return os.Rename(temp, r.node.Conflist())
}

// chained waits until our entry is in the primary's own file, and restarts the runtime, which then reads it.
func (r *rig) chained() {
	r.Helper()
	r.eventually("the plugin is in the network", func() bool {
		data, err := os.ReadFile(r.node.Conflist())
		return err == nil && strings.Contains(string(data), `"istio-pod-network"`)
	})
	r.agentsReady()
	must(r, r.node.RestartRuntime())
}

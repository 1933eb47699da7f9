package cni

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
)

// versions are the CNI versions that the plugin supports.
var versions = []string{"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// capability is the key of runtimeConfig under which containerd and CRI-O pass a pod's annotations.
const capability = "io.kubernetes.cri.pod-annotations"

type object = map[string]any

// Annotations of the pods in the tests.
var (
	mesh     = map[string]string{"sidecar.istio.io/status": "{}"}
	noMesh   = map[string]string{"kubernetes.io/config.source": "api"}
	optedOut = map[string]string{"sidecar.istio.io/status": "{}", "istio-pod-network-controller/initialize": "false"}
)

// pluginConf returns the plugin's entry in a network configuration. more overrides keys.
func (n *node) pluginConf(more object) object {
	conf := object{
		"type": pluginType, "capabilities": object{capability: true},
		"agentSocket": "", "stateDir": n.store.Dir, "backend": "nftables",
	}
	for key, value := range more {
		conf[key] = value
	}
	return conf
}

// conflist returns a network: a primary plugin with host-local addresses, then ours. A bridge network is dual-stack, a
// ptp network has IPv4 alone: ptp waits 1.7 s for duplicate address detection, and pods of one family have to be
// tested, too.
func (n *node) conflist(version, name, primary string, more object) []byte {
	n.Helper()
	ranges := [][]object{{{"subnet": fmt.Sprintf("10.90.%d.0/24", n.subnet)}}}
	first := object{"type": primary, "ipMasq": false}
	if primary == "bridge" {
		first["bridge"], first["isGateway"] = fmt.Sprintf("cni%d", n.subnet), true
		ranges = append(ranges, []object{{"subnet": fmt.Sprintf("fd00:90:%d::/64", n.subnet)}})
	}
	first["ipam"] = object{"type": "host-local", "dataDir": filepath.Join(n.dir, "ipam"), "ranges": ranges}
	data, err := json.Marshal(object{"cniVersion": version, "name": name, "plugins": []object{first, n.pluginConf(more)}})
	if err != nil {
		n.Fatal(err)
	}
	return data
}

// network is a network that libcni drives, as in a runtime.
type network struct {
	*node
	list *libcni.NetworkConfigList
	cni  *libcni.CNIConfig
	exec *recorder
}

func (n *node) network(conflist []byte) *network {
	n.Helper()
	list, err := libcni.NetworkConfFromBytes(conflist)
	if err != nil {
		n.Fatalf("parsing conflist: %v", err)
	}
	raw := &invoke.RawExec{Stderr: n.Output()}
	exec := &recorder{Exec: &invoke.DefaultExec{RawExec: raw}, stdout: map[string][]byte{}}
	cache := filepath.Join(n.dir, "cache")
	return &network{node: n, list: list, exec: exec, cni: libcni.NewCNIConfigWithCacheDir([]string{n.bin}, cache, exec)}
}

// recorder keeps the last stdout of every plugin that libcni runs.
type recorder struct {
	invoke.Exec
	mu     sync.Mutex
	stdout map[string][]byte
}

// ExecPlugin implements invoke.Exec.
func (r *recorder) ExecPlugin(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	out, err := r.Exec.ExecPlugin(ctx, path, stdin, env)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stdout[filepath.Base(path)] = out
	return out, err
}

// runtimeConf returns what the runtime passes for a pod.
func runtimeConf(id, netns string, annotations map[string]string) *libcni.RuntimeConf {
	rt := &libcni.RuntimeConf{ContainerID: id, NetNS: netns, IfName: "eth0", Args: podArgs(id)}
	if annotations != nil {
		rt.CapabilityArgs = object{capability: annotations}
	}
	return rt
}

// podArgs returns the CNI_ARGS of a Kubernetes pod.
func podArgs(id string) [][2]string {
	return [][2]string{
		{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "demo"}, {"K8S_POD_NAME", "demo"},
		{"K8S_POD_INFRA_CONTAINER_ID", id}, {"K8S_POD_UID", "5f5b6a0e-0000-4000-8000-000000000001"},
	}
}

// add runs ADD through libcni. It fails the test on an error.
func (w *network) add(t testing.TB, rt *libcni.RuntimeConf) {
	t.Helper()
	if _, err := w.cni.AddNetworkList(t.Context(), w.list, rt); err != nil {
		t.Fatalf("ADD: %v", err)
	}
}

// del runs DEL through libcni. It fails the test on an error.
func (w *network) del(t testing.TB, rt *libcni.RuntimeConf) {
	t.Helper()
	if err := w.cni.DelNetworkList(t.Context(), w.list, rt); err != nil {
		t.Errorf("DEL: %v", err)
	}
}

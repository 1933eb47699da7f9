package shapes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/record"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { os.Exit(isolated.Main(m, prepare)) }

func prepare(bin string) error {
	if err := build.CNI(bin); err != nil {
		return err
	}
	if err := build.Helm(bin); err != nil {
		return err
	}
	return build.Product(bin, "./install/istio-pod-network-install")
}

const plugin = "istio-pod-network"

// node is a directory tree as the runtime and the installer's container see it.
type node struct {
	testing.TB
	dir     string
	binDir  string   // the installer's
	confDir string   // of both
	binDirs []string // where the runtime looks
	source  string   // of the plugin
	network string   // that pods get; "": the first
	entry   map[string]any
	flags   []string
	number  int
	owner   int // of the configurations
}

var nodes int

func newNode(t testing.TB) *node {
	nodes++
	dir := t.TempDir()
	n := &node{TB: t, dir: dir, binDir: filepath.Join(dir, "opt/cni/bin"), confDir: filepath.Join(dir, "etc/cni/net.d"),
		source: filepath.Join(isolated.BinDir(), plugin), number: nodes}
	n.binDirs = []string{n.binDir}
	n.entry = map[string]any{
		"type": plugin, "capabilities": map[string]bool{"io.kubernetes.cri.pod-annotations": true}, "agentSocket": "",
		"stateDir": filepath.Join(dir, "run"), "backend": "nftables",
	}
	for _, d := range []string{n.binDir, n.confDir} {
		await.Must(t, os.MkdirAll(d, 0o755))
	}
	return n
}

// plugins copies reference plugins to dir, under these names where name=program.
func (n *node) plugins(dir string, names ...string) {
	n.Helper()
	await.Must(n, os.MkdirAll(dir, 0o755))
	for _, name := range names {
		name, program, named := strings.Cut(name, "=")
		if !named {
			program = name
		}
		data, err := os.ReadFile(filepath.Join(isolated.BinDir(), program))
		await.Must(n, err)
		await.Must(n, os.WriteFile(filepath.Join(dir, name), data, 0o755))
	}
}

// conf writes a network configuration of somebody else's.
func (n *node) conf(path, text string) {
	n.Helper()
	if !filepath.IsAbs(path) {
		path = filepath.Join(n.confDir, path)
	}
	await.Must(n, os.MkdirAll(filepath.Dir(path), 0o755))
	await.Must(n, os.WriteFile(path, []byte(text), 0o644))
}

// list is a network of one plugin with addresses of this node alone.
func (n *node) list(version, name, kind, ipam string) string {
	return fmt.Sprintf(`{"cniVersion": %q, "name": %q, "plugins": [{"type": %q, "bridge": "cni%d", "ipam": {"type": %q,
		"dataDir": %q, "ranges": [[{"subnet": "10.91.%d.0/24"}]]}}]}`, version, name, kind, n.number, ipam,
		filepath.Join(n.dir, "ipam"), n.number)
}

// usual has plugins, and a list of them, as most nodes do.
func (n *node) usual() {
	n.Helper()
	n.plugins(n.binDir, "bridge", "host-local")
	n.conf("10-net.conflist", n.list("1.0.0", "net", "bridge", "host-local"))
}

// single is the same network as a plugin alone, for a .conf.
func (n *node) single(version string) string {
	list := n.list(version, "net", "bridge", "host-local")
	return strings.Replace(strings.TrimSuffix(list, "]}"), `"plugins": [{`, "", 1)
}

// mount mounts a tmpfs until the test ends.
func (n *node) mount(dir string, flags uintptr) {
	n.Helper()
	await.Must(n, os.MkdirAll(dir, 0o755))
	await.Must(n, unix.Mount("tmpfs", dir, "tmpfs", flags, "mode=755"))
	n.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
}

// installer is a call of the built program.
func (n *node) installer(command string) *exec.Cmd {
	n.Helper()
	entry, err := json.Marshal(n.entry)
	await.Must(n, err)
	await.Must(n, os.WriteFile(filepath.Join(n.dir, "entry.json"), entry, 0o600))
	args := []string{command, "--source=" + n.source, "--network-config=" + filepath.Join(n.dir, "entry.json"),
		"--bin-dir=" + n.binDir, "--conf-dir=" + n.confDir}
	// As root in the agent's container: with what the chart gives it where it repairs no pods, and no more.
	const capabilities = "-all,+chown,+dac_override,+fowner,+lease"
	args = append([]string{"--bounding-set", capabilities, "--inh-caps", "-all", "--no-new-privs",
		filepath.Join(isolated.BinDir(), "istio-pod-network-install")}, args...)
	return exec.Command("setpriv", append(args, n.flags...)...)
}

// run runs the installer and returns its exit status and what it says.
func (n *node) run(command string) (int, string) {
	n.Helper()
	cmd := n.installer(command)
	out, err := cmd.CombinedOutput()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		n.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// runtime returns the network that the runtime of the node uses: the first file by name that is valid, or that of the
// name with which it was configured.
func (n *node) runtime() (*libcni.CNIConfig, *libcni.NetworkConfigList) {
	n.Helper()
	names, err := libcni.ConfFiles(n.confDir, []string{".conf", ".conflist", ".json"})
	await.Must(n, err)
	for _, name := range names {
		list, err := libcni.NetworkConfFromFile(name)
		if !strings.HasSuffix(name, ".conflist") { // as runtimes make a list of it
			var data []byte
			data, err = os.ReadFile(name)
			await.Must(n, err)
			var head struct{ CNIVersion, Name string }
			await.Must(n, json.Unmarshal(data, &head))
			data, err = json.Marshal(map[string]any{"cniVersion": head.CNIVersion, "name": head.Name,
				"plugins": []json.RawMessage{data}})
			await.Must(n, err)
			list, err = libcni.NetworkConfFromBytes(data)
			await.Must(n, err)
		}
		if err == nil && (n.network == "" || list.Name == n.network) {
			return libcni.NewCNIConfigWithCacheDir(n.binDirs, filepath.Join(n.dir, "cache"), nil), list
		}
	}
	n.Fatalf("no network in %q", names)
	return nil, nil
}

// start makes a pod as the runtime does, and returns whether it has rules.
func (n *node) start(name string, annotations map[string]string) (redirected bool, err error) {
	n.Helper()
	cni, list := n.runtime()
	netns := filepath.Join(n.dir, "netns-"+name)
	await.Must(n, isolated.NewNetNS(netns))
	defer func() { await.Must(n, isolated.RemoveNetNS(netns)) }()
	rt := &libcni.RuntimeConf{
		ContainerID: name, NetNS: netns, IfName: "eth0",
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "shop"}, {"K8S_POD_NAME", name},
			{"K8S_POD_INFRA_CONTAINER_ID", name}, {"K8S_POD_UID", "5f5b6a0e-0000-4000-8000-000000000001"}},
		CapabilityArgs: map[string]any{"io.kubernetes.cri.pod-annotations": annotations},
	}
	if _, err := cni.AddNetworkList(context.Background(), list, rt); err != nil {
		return false, err
	}
	_, err = record.Store{Dir: n.entry["stateDir"].(string)}.Get(name, "eth0")
	redirected = err == nil
	if err := isolated.InNetNS(netns, func() error {
		out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
		if strings.Contains(string(out), "table ip "+plugin) != redirected {
			err = errors.Join(err, fmt.Errorf("recorded %v, rules: %s", redirected, out))
		}
		return err
	}); err != nil {
		n.Error(err)
	}
	return redirected, cni.DelNetworkList(context.Background(), list, rt)
}

var (
	mesh  = map[string]string{"sidecar.istio.io/status": "{}"}
	plain = map[string]string{}
)

// starts fails the test unless pods start, those of the mesh with rules or without.
func (n *node) starts(when string, redirected bool) {
	n.Helper()
	for name, annotations := range map[string]map[string]string{"mesh": mesh, "plain": plain} {
		got, err := n.start(name+"-"+when, annotations)
		if err != nil {
			n.Errorf("%s: the pod %s does not start: %v", when, name, err)
		} else if want := redirected && name == "mesh"; got != want {
			n.Errorf("%s: the pod %s is redirected: %v, want %v", when, name, got, want)
		}
	}
}

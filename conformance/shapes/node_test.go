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
	"sync/atomic"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/internal/await"
	"golang.org/x/sys/unix"
)

const plugin = "istio-pod-network"

// node is a directory tree as the runtime and the installer's container see it.
type node struct {
	testing.TB
	dir            string
	binDir         string   // the installer's
	confDir        string   // of the runtime and the installer
	binDirs        []string // where the runtime looks for plugins
	source         string   // path of the plugin to install
	network        string   // of the pods; "" for the first
	entry          map[string]any
	flags          []string
	hidden         []string          // not visible in the container
	views          map[string]string // paths in the container by paths on the node, if they differ
	number         int
	owner          int // of the configurations
	runtimeVersion string
	name           string // of its Node object; "" if it is in no cluster
}

var nodes atomic.Int32

func newNode(t testing.TB) *node {
	dir, err := os.MkdirTemp("", "shape") // TempDir's path is too long for a socket
	await.Must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	await.Must(t, os.Chmod(dir, 0o755))
	n := &node{
		TB: t, dir: dir, binDir: filepath.Join(dir, "opt/cni/bin"), confDir: filepath.Join(dir, "etc/cni/net.d"),
		source: filepath.Join(isolated.BinDir(), plugin), runtimeVersion: "containerd://1.7.24",
		number: int(nodes.Add(1)), views: map[string]string{},
	}
	n.binDirs = []string{n.binDir}
	n.entry = map[string]any{
		"type": plugin, "capabilities": map[string]bool{"io.kubernetes.cri.pod-annotations": true}, "agentSocket": "",
		"stateDir": n.path("run"), "backend": "nftables",
	}
	for _, d := range []string{n.binDir, n.confDir} {
		await.Must(t, os.MkdirAll(d, 0o755))
	}
	return n
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }

// seen returns the path at which the container sees a directory of the node.
func (n *node) seen(dir string) string {
	if view, elsewhere := n.views[dir]; elsewhere {
		return view
	}
	return dir
}

// plugins copies reference plugins to dir, under these names or as name=program.
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

// conf writes a network configuration of somebody else.
func (n *node) conf(path, text string) {
	n.Helper()
	if !filepath.IsAbs(path) {
		path = filepath.Join(n.confDir, path)
	}
	await.Must(n, os.MkdirAll(filepath.Dir(path), 0o755))
	await.Must(n, os.WriteFile(path, []byte(text), 0o644))
}

// list returns a network of one plugin with addresses for this node alone.
func (n *node) list(version, name, kind, ipam string) string {
	return fmt.Sprintf(`{"cniVersion": %q, "name": %q, "plugins": [{"type": %q, "bridge": "cni%d", "ipam": {"type": %q,
		"dataDir": %q, "ranges": [[{"subnet": "10.91.%d.0/24"}]]}}]}`, version, name, kind, n.number, ipam,
		n.path("ipam"), n.number)
}

// usual gives the node plugins and a list, as on most nodes.
func (n *node) usual() {
	n.Helper()
	n.plugins(n.binDir, "bridge", "host-local")
	n.conf("10-net.conflist", n.list("1.0.0", "net", "bridge", "host-local"))
}

// single returns the same network as a single plugin, for a .conf file.
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

// own gives the node's directories and configurations to another user and group.
func (n *node) own(user int, dirs, files os.FileMode) {
	n.Helper()
	n.owner = user
	for _, root := range []string{n.binDir, n.confDir} {
		await.Must(n, filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
			mode := files
			if e.IsDir() || root == n.binDir {
				mode = dirs
			}
			return errors.Join(err, os.Lchown(path, user, user), os.Chmod(path, mode))
		}))
	}
}

// owned fails the test unless the node's configurations belong to their owner.
func (n *node) owned() {
	n.Helper()
	entries, err := os.ReadDir(n.confDir)
	await.Must(n, err)
	for _, e := range entries {
		var s unix.Stat_t
		await.Must(n, unix.Stat(filepath.Join(n.confDir, e.Name()), &s))
		if conf := filepath.Ext(e.Name()); (conf == ".conf" || conf == ".conflist") && int(s.Uid) != n.owner {
			n.Errorf("%s belongs to %d, want %d", e.Name(), s.Uid, n.owner)
		}
	}
}

// runtime returns the network that the node's runtime uses: the first valid file by name, or the network with the
// configured name.
func (n *node) runtime() (*libcni.CNIConfig, *libcni.NetworkConfigList, error) {
	names, err := libcni.ConfFiles(n.confDir, []string{".conf", ".conflist", ".json"})
	for _, name := range names {
		var list *libcni.NetworkConfigList
		if strings.HasSuffix(name, ".conflist") {
			list, err = libcni.NetworkConfFromFile(name)
		} else {
			list, err = listOf(name)
		}
		if err == nil && (n.network == "" || list.Name == n.network) {
			return libcni.NewCNIConfigWithCacheDir(n.binDirs, n.path("cache"), nil), list, nil
		}
	}
	return nil, nil, fmt.Errorf("no network in %q: %w", names, err)
}

// listOf makes a list of a single plugin, as runtimes do.
func listOf(path string) (*libcni.NetworkConfigList, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var head struct{ CNIVersion, Name string }
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, err
	}
	data, err = json.Marshal(map[string]any{"cniVersion": head.CNIVersion, "name": head.Name,
		"plugins": []json.RawMessage{data}})
	if err != nil {
		return nil, err
	}
	return libcni.NetworkConfFromBytes(data)
}

// hasRules reports whether a network namespace has our rules.
func hasRules(netns string) (has bool, err error) {
	err = isolated.InNetNS(netns, func() error {
		out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
		has = strings.Contains(string(out), "table ip "+plugin)
		return err
	})
	return has, err
}

// starts fails the test unless pods start, those of the mesh with or without rules as wanted.
func (n *node) starts(when string, redirected bool) {
	n.Helper()
	for _, mesh := range []bool{true, false} {
		p := n.pod(when, mesh)
		if err := p.addInTime(); err != nil {
			n.Errorf("%s: the pod %s does not start: %v", when, p.name, err)
			continue
		}
		want := redirected && mesh
		if rules, err := hasRules(p.netns); err != nil || rules != want || p.isRecorded() != want {
			n.Errorf("%s: the pod %s has rules: %t, and a record: %t, want %t; %v", when, p.name, rules,
				p.isRecorded(), want, err)
		}
		if want && n.name != "" {
			n.eventually(when+": the pod "+p.name+" is marked", p.isMarked)
		}
		if err := p.remove(context.Background()); err != nil {
			n.Errorf("%s: the pod %s does not end: %v", when, p.name, err)
		}
	}
}

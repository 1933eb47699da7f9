package install

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/istio-pod-network/controller/internal/await"
)

// asRuntime is a runtime's libcni on a node. The plugins are scripts that log the verbs with which they are called.
type asRuntime struct {
	node
	*libcni.CNIConfig
	rt *libcni.RuntimeConf
}

const result = `{"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.1/24"}]}`

func newRuntime(n node) asRuntime {
	n.t.Helper()
	dir := filepath.Dir(n.BinDir)
	for name, path := range map[string]string{"ptp": filepath.Join(n.BinDir, "ptp"), "ours": n.Source} {
		script := "#!/bin/sh\necho $CNI_COMMAND >>" + filepath.Join(dir, name) + "\necho '" + result + "'\n"
		await.Must(n.t, os.WriteFile(path, []byte(script), 0o755))
	}
	return asRuntime{n, libcni.NewCNIConfigWithCacheDir([]string{n.BinDir}, n.CacheDir, nil), &libcni.RuntimeConf{
		ContainerID: "c0ffee", NetNS: "/run/netns/x", IfName: "eth0",
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "shop"}, {"K8S_POD_NAME", "cart-0"}},
	}}
}

// current returns the network as it is configured now.
func (r asRuntime) current() *libcni.NetworkConfigList {
	r.t.Helper()
	list, err := libcni.NetworkConfFromFile(filepath.Join(r.ConfDir, "10-net.conflist"))
	await.Must(r.t, err)
	return list
}

// kept returns the network as libcni has cached it for the pod.
func (r asRuntime) kept() *libcni.NetworkConfigList {
	r.t.Helper()
	config, _, err := r.GetNetworkListCachedConfig(r.current(), r.rt)
	await.Must(r.t, err)
	list, err := libcni.ConfListFromBytes(config)
	await.Must(r.t, err)
	return list
}

// add creates a pod, and del deletes it with the given list: the primary's plugin must be called, to release the
// address.
func (r asRuntime) add() {
	r.t.Helper()
	_, err := r.AddNetworkList(r.t.Context(), r.current(), r.rt)
	await.Must(r.t, err)
}

func (r asRuntime) del(list *libcni.NetworkConfigList) {
	r.t.Helper()
	if err := r.DelNetworkList(r.t.Context(), list, r.rt); err != nil {
		r.t.Errorf("the pod cannot be deleted: %v", err)
	}
	called, err := os.ReadFile(filepath.Join(filepath.Dir(r.BinDir), "ptp"))
	if err != nil || !strings.HasSuffix(string(called), "DEL\n") {
		r.t.Errorf("the address of the pod is not released: ptp was called by %q, %v", called, err)
	}
}

// A pod that was created with the plugin can be deleted after a purge, and its address is released, whether its runtime
// uses the current or the cached configuration. For the latter the binary and the records stay; for the former they are
// removed at once.
func TestPurge(t *testing.T) {
	for name, c := range map[string]struct {
		runtime string
		dropIn  DropIn
		current bool // the runtime uses the current configuration
		stays   string
	}{
		"CRI-O, splice":       {"cri-o://1.31.0", DropInNever, false, "and cri-o calls the plugin"},
		"CRI-O, drop-in":      {"cri-o://1.37.0", DropInAlways, false, ""},
		"containerd, splice":  {"containerd://1.7.1", DropInNever, true, ""},
		"containerd, drop-in": {"containerd://2.1.4", DropInAlways, true, ""},
		"not known, splice":   {"", DropInNever, false, "and the container runtime calls the plugin"},
		"not known, drop-in":  {"", DropInAlways, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, "10-net.conflist", `{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "ptp"}]}`)
			dir := filepath.Dir(n.BinDir)
			n.RuntimeVersion, n.DropIn = c.runtime, c.dropIn
			n.CacheDir, n.StateDir = filepath.Join(dir, "cache"), filepath.Join(dir, "state")
			r := newRuntime(n)
			n.install()
			r.add()
			if called, _ := os.ReadFile(filepath.Join(dir, "ours")); string(called) != "ADD\n" {
				t.Fatalf("the plugin was called by %q", called)
			}
			await.Must(t, os.MkdirAll(n.StateDir, 0o700))
			await.Must(t, os.WriteFile(filepath.Join(n.StateDir, "a record"), nil, 0o600))
			wantLeft := func(when string, want bool) {
				t.Helper()
				for _, path := range []string{n.binary(), filepath.Join(n.StateDir, "a record")} {
					if _, err := os.Stat(path); (err == nil) != want {
						t.Errorf("%s: %s: %v", when, path, err)
					}
				}
			}
			err := Uninstall(n.Config, true)
			if IsNeeded(err) != (c.stays != "") || !IsNeeded(err) && err != nil {
				t.Fatalf("purged with the error %v", err)
			}
			if c.stays != "" {
				text := Explain(err)
				for _, words := range []string{"1 sandbox is there", "such as shop/cart-0", c.stays, "remedy: delete these pods"} {
					if !strings.Contains(text, words) {
						t.Errorf("%q is missing in: %s", words, text)
					}
				}
			}
			wantLeft("with the pod", c.stays != "")
			if s := n.status(); s.Chained != NotChained {
				t.Errorf("still chained: %+v", s)
			}
			list := r.kept()
			if c.current {
				list = r.current()
			}
			r.del(list)
			n.uninstall()
			wantLeft("without it", false)
		})
	}
}

// What Multus has cached for a pod counts with any runtime. A file that cannot be parsed does not count, and a
// directory that cannot be read may contain anything.
func TestNeeds(t *testing.T) {
	text := func(plugins string) string {
		return base64.StdEncoding.EncodeToString([]byte(`{"name": "net", "cniVersion": "1.0.0", ` + plugins + `}`))
	}
	ours := text(`"plugins": [{"type": "ptp"}, {"type": "istio-pod-network"}]`)
	theirs, alone := text(`"plugins": [{"type": "ptp"}]`), text(`"type": "istio-pod-network"`)
	libcniFile := func(kind, config string) string {
		return `{"kind": "` + kind + `", "containerId": "c0ffee", "config": "` + config + `"}`
	}
	for name, c := range map[string]struct {
		files   map[string]string
		runtime string
		want    string // words of the error; "": none
	}{
		"no cache": {nil, "", ""},
		"ours": {map[string]string{"results/net-c0ffee-eth0": libcniFile("cniCacheV1", ours)}, "cri-o://1.31.0",
			"such as c0ffee"},
		"ours, containerd": {map[string]string{"results/net-c0ffee-eth0": libcniFile("cniCacheV1", ours)},
			"containerd://2.1.4", ""},
		"two": {map[string]string{"results/a": libcniFile("cniCacheV1", ours), "results/b": libcniFile("cniCacheV1", ours)},
			"", "2 sandboxes are there"},
		"theirs": {map[string]string{"results/net-c0ffee-eth0": libcniFile("cniCacheV1", theirs)}, "", ""},
		"torn, empty, other": {map[string]string{"results/torn": libcniFile("cniCacheV1", ours)[:80], "results/empty": "",
			"results/kind": libcniFile("cniCacheV2", ours), "results/config": libcniFile("cniCacheV1", "e30="),
			"multus/torn": `[{"Bytes": "`, "multus/object": `{"Bytes": "` + ours + `"}`, "results/dir/x": ""}, "", ""},
		"Multus": {map[string]string{"multus/decaf": `[{"Bytes": "` + theirs + `"}, {"Bytes": "` + alone + `"}]`,
			"multus/results/x": libcniFile("cniCacheV1", ours)}, "containerd://2.1.4", "such as decaf), and Multus calls"},
		"Multus without us": {map[string]string{"multus/decaf": `[{"Bytes": "` + theirs + `"}]`}, "cri-o://1.31.0", ""},
		"both": {map[string]string{"results/x": libcniFile("cniCacheV1", ours), "multus/x": `[{"Bytes": "` + ours + `"}]`},
			"cri-o://1.31.0", "2 sandboxes are there, made with the plugin (such as c0ffee), and cri-o or Multus calls"},
		"not a directory": {map[string]string{"results": ""}, "", "looking for pods"},
	} {
		dir := t.TempDir()
		for file, contents := range c.files {
			await.Must(t, os.MkdirAll(filepath.Join(dir, filepath.Dir(file)), 0o755))
			await.Must(t, os.WriteFile(filepath.Join(dir, file), []byte(contents), 0o600))
		}
		err := Needs(Config{CacheDir: dir, RuntimeVersion: c.runtime})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// FuzzNeeds parses files of the caches: with any contents it returns, and a sandbox has a name.
func FuzzNeeds(f *testing.F) {
	f.Add([]byte(`{"kind": "cniCacheV1", "config": "e30=", "cniArgs": [["K8S_POD_NAME", "x"]]}`))
	f.Add([]byte(`[{"Bytes": "eyJ0eXBlIjogImlzdGlvLXBvZC1uZXR3b3JrIn0="}, null]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, read := range []func(string, []byte) (string, bool){byLibcni, byMultus} {
			if _, ours := read("x", data); ours && !json.Valid(data) {
				t.Errorf("taken for ours: %q", data)
			}
		}
	})
}

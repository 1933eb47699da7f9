package agent

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/istio-pod-network/controller/agent/inspect"
	"github.com/istio-pod-network/controller/install"
	"github.com/istio-pod-network/controller/internal/files"
)

// Default paths of runtimes' configurations. A runtime may have been started with another file. Sources: containerd's
// documentation, man page and packages; K3s, RKE2, MicroK8s, k0s and Talos for their files; crio.conf(5) and
// crio.conf.d(5).
var (
	containerdFiles = []string{
		"/etc/containerd/config.toml", "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
		"/var/lib/rancher/rke2/agent/etc/containerd/config.toml", "/var/snap/microk8s/current/args/containerd.toml",
		"/etc/k0s/containerd.toml", "/etc/cri/containerd.toml",
	}
	crioFiles = []string{"/etc/crio/crio.conf", "/etc/crio/crio.conf.d/*"} // in this order; later ones win
)

// mostOfConfig limits the size of a runtime's configuration file, in bytes. They have a few kilobytes.
const mostOfConfig = 1 << 20

// tables is a table of a TOML file.
type tables = map[string]any

// at returns the value at the path of keys, the zero value if there is none of that type.
func at[T any](t tables, keys ...string) (found T) {
	for _, key := range keys[:len(keys)-1] {
		t, _ = t[key].(tables)
	}
	found, _ = t[keys[len(keys)-1]].(T)
	return found
}

// stringsIn returns the non-empty strings of a list.
func stringsIn(list []any) (all []string) {
	for _, one := range list {
		if text, is := one.(string); is && text != "" {
			all = append(all, text)
		}
	}
	return all
}

// runtimes reads the configurations of this node's container runtimes, and compares their CNI directories with those of
// the agents.
func (p prober) runtimes() (all []inspect.Runtime) {
	for _, file := range p.containerd {
		if its, there := containerd(file); there {
			all = append(all, p.compared(its))
		}
	}
	if its, there := crio(p.crio); there {
		all = append(all, p.compared(its))
	}
	return all
}

// containerd reads one of containerd's configurations: the file and its imports, which override what came before. there
// is false if there is no file, or if its CRI plugin is disabled. The CRI plugin is called cri in version 1 of the
// file, io.containerd.grpc.v1.cri in version 2, and io.containerd.cri.v1.runtime in version 3. Source: containerd,
// cmd/containerd/server/config and docs/cri/config.md.
func containerd(file string) (its inspect.Runtime, there bool) {
	its.Name = "containerd"
	main, err := read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return its, false
	}
	its.Files = []string{file}
	if err != nil {
		its.Problem = err.Error()
		return its, true
	}
	all := []tables{main}
	for _, pattern := range stringsIn(at[[]any](main, "imports")) {
		if !filepath.IsAbs(pattern) {
			pattern = filepath.Join(filepath.Dir(file), pattern)
		}
		imported, _ := filepath.Glob(pattern)
		for _, name := range imported {
			more, err := read(name)
			its.Files, all = append(its.Files, name), append(all, more)
			if err != nil {
				its.Problem = err.Error()
				return its, true
			}
		}
	}
	for _, t := range all {
		for _, disabled := range stringsIn(at[[]any](t, "disabled_plugins")) {
			if disabled == "cri" || strings.HasSuffix(disabled, ".cri") {
				return its, false // it serves Docker, not a kubelet
			}
		}
		for _, plugin := range []string{"cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"} {
			cni := at[tables](t, "plugins", plugin, "cni")
			its.ConfDir = cmp.Or(at[string](cni, "conf_dir"), its.ConfDir)
			if dirs := stringsIn(append(at[[]any](cni, "bin_dirs"), at[string](cni, "bin_dir"))); len(dirs) > 0 {
				its.BinDirs = dirs
			}
		}
	}
	return its, true
}

// crio reads CRI-O's configuration: its file, then the drop-ins in the order of their names, which override it. Source:
// crio.conf(5).
func crio(patterns []string) (its inspect.Runtime, there bool) {
	its.Name = "cri-o"
	for _, pattern := range patterns {
		found, _ := filepath.Glob(pattern)
		for _, name := range found {
			t, err := read(name)
			its.Files = append(its.Files, name)
			if err != nil {
				its.Problem = err.Error()
				return its, true
			}
			network := at[tables](t, "crio", "network")
			its.ConfDir = cmp.Or(at[string](network, "network_dir"), its.ConfDir)
			if dirs := stringsIn(append(at[[]any](network, "plugin_dirs"), at[string](network, "plugin_dir"))); len(dirs) > 0 {
				its.BinDirs = dirs
			}
		}
	}
	return its, len(its.Files) > 0
}

// read parses a TOML file. Its errors have no text from the file, which may have credentials of registries.
func read(name string) (t tables, err error) {
	data, err := files.Read(name, mostOfConfig)
	if err != nil {
		return nil, err
	}
	if err := toml.Unmarshal(data, &t); err != nil {
		var where toml.ParseError
		if errors.As(err, &where) {
			return nil, fmt.Errorf("%s: line %d is no TOML", name, where.Position.Line)
		}
		return nil, fmt.Errorf("%s: it is no TOML", name)
	}
	return t, nil
}

// compared fills in the runtime's defaults, and says whether the directories are those of the agents.
func (p prober) compared(its inspect.Runtime) inspect.Runtime {
	if its.Problem != "" {
		return its
	}
	its.ConfDir = cmp.Or(its.ConfDir, install.DefaultConfDir)
	if its.BinDirs == nil {
		its.BinDirs = []string{install.DefaultBinDir}
	}
	its.SameConfDir = same(its.ConfDir, p.confDirs[0])
	its.HasBinDir = slices.ContainsFunc(its.BinDirs, func(dir string) bool { return same(dir, p.binDirs[0]) })
	return its
}

// same reports whether two paths lead to one directory, also through symbolic links.
func same(one, other string) bool {
	if filepath.Clean(one) == filepath.Clean(other) {
		return true
	}
	a, err := os.Stat(one)
	if err != nil {
		return false
	}
	b, err := os.Stat(other)
	return err == nil && os.SameFile(a, b)
}

package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/istio-pod-network/controller/install/conflist"
	"github.com/istio-pod-network/controller/internal/files"
)

// DefaultCacheDir is where libcni, and Multus in a directory of its own, keep what they have called plugins with.
const DefaultCacheDir = "/var/lib/cni"

// maxKept bounds a file of these in bytes. One has the network's configuration, the result, and the annotations of its
// pod, of which the API server takes 256 KiB.
const maxKept = 4 << 20

// Needed is the error of a purge that would leave pods that nobody can delete: of each of these sandboxes somebody has
// kept a configuration with our entry in it, and deletes it by that. Without the binary this fails, and the plugins
// that come after ours in a DEL are not called: the pod's address is not released.
type Needed struct {
	Sandboxes []string // of each its pod, namespace/name, or its container ID where that is not known
	By        string   // who calls the plugin for them
}

func (n *Needed) Error() string {
	return fmt.Sprintf("the binary and the records stay: %s, made with the plugin (such as %s), and %s "+
		"calls the plugin to delete them", sandboxes(len(n.Sandboxes)), n.Sandboxes[0], n.By)
}

func sandboxes(n int) string {
	if n == 1 {
		return "1 sandbox is there"
	}
	return fmt.Sprintf("%d sandboxes are there", n)
}

// IsNeeded reports whether err says that the binary stays because pods cannot be deleted without it.
func IsNeeded(err error) bool { return errors.As(err, new(*Needed)) }

// DeletesByCurrent reports whether a container runtime deletes a pod by the configuration of now. containerd does
// (go-cni, Network.Remove). CRI-O takes the one that libcni has kept of the pod (ocicni, loadNetworkFromCache), and
// what is not known may. The version is as in a node's status.nodeInfo.containerRuntimeVersion.
func DeletesByCurrent(runtimeVersion string) bool {
	return strings.HasPrefix(runtimeVersion, "containerd://")
}

// Needs returns an error that IsNeeded if there are sandboxes that cannot be deleted without the plugin's binary, and
// another one if that cannot be found out. Without a CacheDir nobody is asked.
func Needs(c Config) error {
	if c.CacheDir == "" {
		return nil
	}
	needed := &Needed{}
	if !DeletesByCurrent(c.RuntimeVersion) {
		kept, err := keptIn(filepath.Join(c.CacheDir, "results"), byLibcni)
		if err != nil {
			return err
		}
		if needed.Sandboxes = kept; len(kept) > 0 {
			needed.By = "the container runtime"
			if name, _, known := strings.Cut(c.RuntimeVersion, "://"); known {
				needed.By = name
			}
		}
	}
	// Whatever the runtime is: it calls Multus, and Multus calls us.
	kept, err := keptIn(filepath.Join(c.CacheDir, "multus"), byMultus)
	switch {
	case err != nil:
		return err
	case len(kept) > 0 && needed.By != "":
		needed.By += " or Multus"
	case len(kept) > 0:
		needed.By = "Multus"
	}
	if needed.Sandboxes = append(needed.Sandboxes, kept...); len(needed.Sandboxes) > 0 {
		return needed
	}
	return nil
}

// reader reads a file about a sandbox, and reports whether it is deleted by our entry.
type reader func(name string, data []byte) (sandbox string, ours bool)

// keptIn returns the sandboxes of which a file in the directory has our entry. A file that cannot be read as such a
// file is not one by which anything is deleted: those who keep it then take the configuration of now.
func keptIn(dir string, read reader) (sandboxes []string, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking for pods that need the plugin to be deleted: %w", err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		data, err := files.ReadNoFollow(filepath.Join(dir, e.Name()), maxKept)
		if err != nil {
			continue // gone meanwhile, or none of theirs
		}
		if sandbox, ours := read(e.Name(), data); ours {
			sandboxes = append(sandboxes, sandbox)
		}
	}
	return sandboxes, nil
}

// byLibcni reads a file that libcni writes after an ADD of the whole chain (api.go, cachedInfo). A drop-in is not in
// the configuration that it keeps.
func byLibcni(_ string, data []byte) (sandbox string, ours bool) {
	var kept struct {
		Kind        string      `json:"kind"`
		ContainerID string      `json:"containerId"`
		Config      []byte      `json:"config"`
		Args        [][2]string `json:"cniArgs"`
	}
	if json.Unmarshal(data, &kept) != nil || kept.Kind != "cniCacheV1" {
		return "", false
	}
	values := map[string]string{}
	for _, a := range kept.Args {
		values[a[0]] = a[1]
	}
	sandbox = kept.ContainerID
	if name := values["K8S_POD_NAME"]; name != "" {
		sandbox = values["K8S_POD_NAMESPACE"] + "/" + name
	}
	return sandbox, namesUs(kept.Config)
}

// byMultus reads a file that Multus writes before it calls the networks of a pod, named by the container ID: a list of
// networks, of each the configuration by which it is deleted (multus.go, saveDelegates; types.go, DelegateNetConf).
func byMultus(name string, data []byte) (sandbox string, ours bool) {
	var kept []struct{ Bytes []byte }
	if json.Unmarshal(data, &kept) != nil {
		return "", false
	}
	for _, network := range kept {
		ours = ours || namesUs(network.Bytes)
	}
	return name, ours
}

// namesUs reports whether our entry is in a network's configuration.
func namesUs(configuration []byte) bool {
	conf, err := conflist.Parse(configuration)
	return err == nil && conf.Ours() > 0
}

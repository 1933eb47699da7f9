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

// DefaultCacheDir is the directory in which libcni, and Multus in a subdirectory, cache what they have called plugins
// with.
const DefaultCacheDir = "/var/lib/cni"

// maxKept limits the size of such a file in bytes. It has the network's configuration, the result, and the pod's
// annotations, up to 256 KiB.
const maxKept = 4 << 20

// Needed is the error of a purge that would leave pods that cannot be deleted. For each of these sandboxes somebody has
// cached a configuration with our entry, and will use it for DEL. Without the binary that DEL fails, and the plugins
// that come after ours in a DEL are not called, so the pod's address is not released.
type Needed struct {
	Sandboxes []string // the pod of each, namespace/name, or the container ID if the pod is unknown
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

// DeletesByCurrent reports whether a container runtime uses the current configuration to delete a pod. containerd does
// (go-cni, Network.Remove). CRI-O uses the one that libcni has cached for the pod (ocicni, loadNetworkFromCache), and
// an unknown runtime may. The version has the form of a node's status.nodeInfo.containerRuntimeVersion.
func DeletesByCurrent(runtimeVersion string) bool {
	return strings.HasPrefix(runtimeVersion, "containerd://")
}

// Needs returns an error for which IsNeeded holds if there are sandboxes that cannot be deleted without the plugin's
// binary, and another error if it cannot find out. It returns nil if c.CacheDir is empty.
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
	// Multus calls the plugin with any runtime.
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

// reader parses a file about a sandbox, and reports whether the configuration in it has our entry.
type reader func(name string, data []byte) (sandbox string, ours bool)

// keptIn returns the sandboxes for which a file in the directory has our entry. A file that cannot be parsed does not
// count: its owner then uses the current configuration.
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
			continue // it is gone, or not one of their files
		}
		if sandbox, ours := read(e.Name(), data); ours {
			sandboxes = append(sandboxes, sandbox)
		}
	}
	return sandboxes, nil
}

// byLibcni parses a file that libcni writes after an ADD of the whole chain (containernetworking/cni libcni/api.go,
// cachedInfo). Its configuration does not have drop-ins.
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

// byMultus parses a file that Multus writes before it calls the networks of a pod. Its name is the container ID. It has
// a list of networks, each with the configuration for its deletion (multus-cni multus.go, saveDelegates; types.go,
// DelegateNetConf).
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

// namesUs reports whether a network's configuration has our entry.
func namesUs(configuration []byte) bool {
	conf, err := conflist.Parse(configuration)
	return err == nil && conf.Ours() > 0
}

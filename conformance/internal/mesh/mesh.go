// Package mesh installs a real mesh on a cluster: istiod with Istio's own charts, and sidecars with pilot-agent and
// Envoy. It builds the images itself.
package mesh

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"
)

// Namespace is the namespace of istiod.
const Namespace = "istio-system"

// Names of the images, as Istio's charts derive them from hub and tag.
const (
	hub        = "e2e.local"
	tag        = "1"
	pilotImage = hub + "/pilot:" + tag
	proxyImage = hub + "/proxyv2:" + tag
	proxyUser  = "1337:1337"
)

// charts are the paths of Istio's charts, below the directory of its manifests.
var charts = map[string]string{
	"base": "charts/base", "istiod": "charts/istio-control/istio-discovery", "gateway": "charts/gateway",
	"cni": "charts/istio-cni",
}

// Build links the programs of the images, and Istio's charts, into bin.
func Build(bin string) error {
	if err := Check(); err != nil {
		return err
	}
	names := []string{"istio-manifests", "pilot-discovery", "gateway-api"}
	if named() != "" {
		if err := build.Istio(bin, names...); err != nil {
			return err
		}
		return fetchNamed(bin)
	}
	names = append(names, "pilot-agent", "envoy_bootstrap.json")
	if os.Getenv(envoyEnv) == "" {
		names = append(names, "envoy")
	}
	return build.Istio(bin, names...)
}

// Images writes the archives of istiod's image and the sidecars' image into a directory. Files have the same paths as
// in Istio's own images. Envoy's libraries are this machine's, and so is iptables, which only istio-init runs. If
// envoyEnv names an image, proxy is its archive.
func Images(bin, dir string) (pilot, proxy string, err error) {
	pilot, proxy = filepath.Join(dir, "pilot.tar"), filepath.Join(dir, "proxyv2.tar")
	discovery := "usr/local/bin/pilot-discovery"
	err = cluster.Image(pilot, pilotImage, proxyUser,
		[]cluster.File{{Source: filepath.Join(bin, "pilot-discovery"), Path: discovery}}, "/"+discovery)
	if err != nil {
		return "", "", err
	}
	if named() != "" {
		return pilot, namedArchive(bin), nil
	}
	files, err := sidecar(bin)
	if err != nil {
		return "", "", err
	}
	tables, err := iptables()
	if err != nil {
		return "", "", err
	}
	return pilot, proxy, cluster.Image(proxy, proxyImage, proxyUser, slices.Concat(files, tables), "/"+agent)
}

// agent is the path of pilot-agent in a sidecar image, without the first slash.
const agent = "usr/local/bin/pilot-agent"

// sidecar returns the files of the sidecar image. Envoy is the first.
func sidecar(bin string) ([]cluster.File, error) {
	files, err := cluster.Linked(envoy(bin), envoyPath)
	return append(files, cluster.File{Source: filepath.Join(bin, "pilot-agent"), Path: agent},
		cluster.File{Source: filepath.Join(bin, "envoy_bootstrap.json"),
			Path: "var/lib/istio/envoy/envoy_bootstrap_tmpl.json"}), err
}

// CapableImage is the name of the image that CapableSidecar writes.
const CapableImage = hub + "/proxyv2-capable:" + tag

// CapableSidecar writes the archive of a sidecar image in which Envoy has the file capability NET_ADMIN. A TPROXY
// sidecar needs it if it does not run as root. It returns "" if envoyEnv names an image, because that is not changed.
func CapableSidecar(bin, dir string) (archive string, err error) {
	if named() != "" {
		return "", nil
	}
	files, err := sidecar(bin)
	if err != nil {
		return "", err
	}
	files[0].Capabilities = []uint{unix.CAP_NET_ADMIN}
	archive = filepath.Join(dir, "proxyv2-capable.tar")
	return archive, cluster.Image(archive, CapableImage, proxyUser, files, "/"+agent)
}

// Values returns the values of Istio's charts for these images, as YAML. If Envoy is not Istio's own, they turn off
// what needs Istio's filters.
func Values(bin string) ([]byte, error) {
	plain, err := plain(bin)
	if err != nil {
		return nil, err
	}
	small := map[string]any{"requests": map[string]any{"cpu": "10m", "memory": "64Mi"}}
	seccomp := map[string]any{"type": "RuntimeDefault"} // required by Pod Security restricted
	values := map[string]any{
		"global": map[string]any{"hub": hub, "tag": tag, "imagePullPolicy": "Never",
			"proxy": map[string]any{"seccompProfile": seccomp, "resources": small}},
		"seccompProfile": seccomp, "resources": small, "autoscaleEnabled": false,
		"gateways": map[string]any{"seccompProfile": seccomp}, // for gateways that istiod creates
	}
	if plain {
		values["telemetry"] = map[string]any{"enabled": false}
		values["env"] = map[string]any{"PILOT_ENABLE_ALPN_FILTER": "false", "PILOT_ENABLE_METADATA_EXCHANGE": "false"}
	}
	return yaml.Marshal(values)
}

// Helm installs Istio's charts with Helm 4 and the rights of a kubeconfig.
type Helm struct {
	Program    string // the path of Helm
	Kubeconfig string
	Bin        string // directory into which Build has linked the charts
	Dir        string // directory for values files
}

// Install installs or upgrades a release of one of Istio's charts (base, istiod, gateway or cni) in a namespace, and
// waits until it is ready. The values are, in this order: Values for istiod, or the image for cni; then files; then
// sets, in the form of --set.
func (h Helm) Install(release, chart, namespace string, files []string, sets ...string) error {
	args := []string{"upgrade", "--install", release, filepath.Join(h.Bin, "istio-manifests", charts[chart]),
		"--namespace=" + namespace, "--create-namespace", "--wait", "--timeout=5m", "--reset-values"}
	if own := h.values(chart); own != nil {
		values, err := own()
		if err != nil {
			return err
		}
		file := filepath.Join(h.Dir, "mesh-values.yaml")
		if err := os.WriteFile(file, values, 0o600); err != nil {
			return err
		}
		files = append([]string{file}, files...)
	}
	for _, file := range files {
		args = append(args, "--values="+file)
	}
	for _, set := range sets {
		args = append(args, "--set="+set)
	}
	return h.run(args...)
}

// values returns a function that returns a chart's values for these images, or nil if it needs none.
func (h Helm) values(chart string) func() ([]byte, error) {
	switch chart {
	case "istiod":
		return func() ([]byte, error) { return Values(h.Bin) }
	case "cni":
		return cniValues
	}
	return nil
}

// Uninstall removes a release, and waits until its objects are gone. A missing release is no error.
func (h Helm) Uninstall(release, namespace string) error {
	return h.run("uninstall", release, "--namespace="+namespace, "--ignore-not-found", "--wait", "--timeout=5m")
}

// CRDs returns the path of the manifest with the CRDs of the chart base. Helm does not remove them when it uninstalls
// the chart.
func (h Helm) CRDs() string {
	return filepath.Join(h.Bin, "istio-manifests", charts["base"], "files", "crd-all.gen.yaml")
}

// GatewayAPI returns the path of the manifest of a CRD of the Gateway API. plural is the resource's plural name.
func (h Helm) GatewayAPI(plural string) string {
	return filepath.Join(h.Bin, "gateway-api", "gateway.networking.k8s.io_"+plural+".yaml")
}

func (h Helm) run(args ...string) error {
	cmd := exec.Command(h.Program, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+h.Kubeconfig)
	if out, err := cmd.CombinedOutput(); err != nil {
		return errors.Join(fmt.Errorf("helm %s: %w", strings.Join(args, " "), err), errors.New(string(out)))
	}
	return nil
}

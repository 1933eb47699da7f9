// Package mesh brings a real mesh into a cluster: istiod by Istio's own charts, and sidecars of pilot-agent and Envoy,
// in images that are made here.
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

// Namespace is where istiod lives.
const Namespace = "istio-system"

// The images' names: what Istio's charts make of hub and tag.
const (
	hub        = "e2e.local"
	tag        = "1"
	pilotImage = hub + "/pilot:" + tag
	proxyImage = hub + "/proxyv2:" + tag
	proxyUser  = "1337:1337"
)

// charts are the paths of Istio's charts, below the directory with all of them.
var charts = map[string]string{
	"base": "charts/base", "istiod": "charts/istio-control/istio-discovery", "gateway": "charts/gateway",
	"cni": "charts/istio-cni",
}

// Build links what the images are made of, and Istio's charts, into bin.
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

// Images writes the archives of istiod's and the sidecars' image into a directory. Files are where Istio's own images
// have them; Envoy's libraries, and iptables, which only istio-init runs, are this machine's. If an image is named,
// that is the sidecars'.
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

// agent is where pilot-agent is in the image of a sidecar.
const agent = "usr/local/bin/pilot-agent"

// sidecar are the files of the sidecars' image, Envoy first.
func sidecar(bin string) ([]cluster.File, error) {
	files, err := cluster.Linked(envoy(bin), envoyPath)
	return append(files, cluster.File{Source: filepath.Join(bin, "pilot-agent"), Path: agent},
		cluster.File{Source: filepath.Join(bin, "envoy_bootstrap.json"),
			Path: "var/lib/istio/envoy/envoy_bootstrap_tmpl.json"}), err
}

// CapableImage is the name of what CapableSidecar makes.
const CapableImage = hub + "/proxyv2-capable:" + tag

// CapableSidecar writes the archive of a sidecar's image whose Envoy has NET_ADMIN as whatever user it runs, which a
// TPROXY sidecar needs that is not root. It returns "" if an image is named: that is as it is.
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

// Values are those of Istio's charts for these images, as YAML. Where Envoy is not Istio's own they turn off, by the
// settings that Istio has for that, what needs Istio's filters.
func Values(bin string) ([]byte, error) {
	plain, err := plain(bin)
	if err != nil {
		return nil, err
	}
	small := map[string]any{"requests": map[string]any{"cpu": "10m", "memory": "64Mi"}}
	seccomp := map[string]any{"type": "RuntimeDefault"} // which Pod Security restricted asks for
	values := map[string]any{
		"global": map[string]any{"hub": hub, "tag": tag, "imagePullPolicy": "Never",
			"proxy": map[string]any{"seccompProfile": seccomp, "resources": small}},
		"seccompProfile": seccomp, "resources": small, "autoscaleEnabled": false,
		"gateways": map[string]any{"seccompProfile": seccomp}, // of those that istiod makes
	}
	if plain {
		values["telemetry"] = map[string]any{"enabled": false}
		values["env"] = map[string]any{"PILOT_ENABLE_ALPN_FILTER": "false", "PILOT_ENABLE_METADATA_EXCHANGE": "false"}
	}
	return yaml.Marshal(values)
}

// Helm installs Istio's charts with Helm 4, as a person with all rights does.
type Helm struct {
	Program    string // the path of Helm
	Kubeconfig string
	Bin        string // where Build has put the charts
	Dir        string // a directory for files of values
}

// Install installs or upgrades a release of one of Istio's charts, base, istiod, gateway or cni, in a namespace, and
// waits until it is ready. The values of istiod are those of Values, those of cni name its image; then come those of
// files, and each of sets as --set takes it.
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

// values are what a chart is told of these images.
func (h Helm) values(chart string) func() ([]byte, error) {
	switch chart {
	case "istiod":
		return func() ([]byte, error) { return Values(h.Bin) }
	case "cni":
		return cniValues
	}
	return nil
}

// Uninstall removes a release, and waits until its objects are gone; one that is not there is no error.
func (h Helm) Uninstall(release, namespace string) error {
	return h.run("uninstall", release, "--namespace="+namespace, "--ignore-not-found", "--wait", "--timeout=5m")
}

// CRDs is the path of a manifest with those of the chart base, which Helm leaves when it uninstalls it.
func (h Helm) CRDs() string {
	return filepath.Join(h.Bin, "istio-manifests", charts["base"], "files", "crd-all.gen.yaml")
}

// GatewayAPI is the path of a manifest with one of the definitions of the Gateway API, by its plural name.
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

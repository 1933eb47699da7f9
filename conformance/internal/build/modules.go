package build

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// IstioCharts links Istio's manifests, which contain its charts, into bin. They come from the Istio module that
// conformance/istio/go.mod pins. It builds nothing.
func IstioCharts(bin string) error {
	return linkFromModule(filepath.Join(bin, "istio-manifests"), "istio", "istio.io/istio", "manifests")
}

// OpenAPI links the OpenAPI description of the Kubernetes API into bin. It comes from the Kubernetes module that
// conformance/kubernetes/go.mod pins.
func OpenAPI(bin string) error {
	return linkFromModule(filepath.Join(bin, "swagger.json"), "kubernetes", "k8s.io/kubernetes",
		"api/openapi-spec/swagger.json")
}

// linkFromModule links a file or directory of a module, at the version that the go.mod in a directory of conformance
// pins.
func linkFromModule(link, dir, name, path string) error {
	cmd := exec.Command("go", "-C", filepath.Join(Root(), "conformance", dir), "mod", "download", "-json", name)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	var module struct{ Dir string }
	if err == nil {
		err = json.Unmarshal(out, &module)
	}
	if err != nil {
		return fmt.Errorf("looking for %s of %s: %w", path, name, err)
	}
	return os.Symlink(filepath.Join(module.Dir, filepath.FromSlash(path)), link)
}

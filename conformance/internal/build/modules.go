package build

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// IstioCharts links Istio's manifests, in which its charts are, into bin, as they are in the module that
// conformance/istio pins. Nothing of Istio is built.
func IstioCharts(bin string) error {
	return linkFromModule(filepath.Join(bin, "istio-manifests"), "istio", "istio.io/istio", "manifests")
}

// OpenAPI links the description of Kubernetes' API into bin, as it is in the module that conformance/kubernetes pins.
func OpenAPI(bin string) error {
	return linkFromModule(filepath.Join(bin, "swagger.json"), "kubernetes", "k8s.io/kubernetes",
		"api/openapi-spec/swagger.json")
}

// linkFromModule links what is at a path of a module that a directory of conformance pins.
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

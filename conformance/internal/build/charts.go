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
	cmd := exec.Command("go", "-C", filepath.Join(Root(), "conformance", "istio"), "mod", "download", "-json",
		"istio.io/istio")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	var module struct{ Dir string }
	if err == nil {
		err = json.Unmarshal(out, &module)
	}
	if err != nil {
		return fmt.Errorf("looking for Istio's charts: %w", err)
	}
	return os.Symlink(filepath.Join(module.Dir, "manifests"), filepath.Join(bin, "istio-manifests"))
}

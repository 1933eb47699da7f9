package schemas

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/isolated"
)

func TestMain(m *testing.M) { os.Exit(isolated.Main(m, prepare)) }

func prepare(bin string) error {
	if err := build.Helm(bin); err != nil {
		return err
	}
	return build.OpenAPI(bin)
}

const name = "istio-pod-network-controller"

func dir() string { return filepath.Join(build.Root(), "chart", name) }

// template returns the output of `helm template` of a chart with values or flags.
func template(t *testing.T, helm, chart string, values ...string) string {
	t.Helper()
	args := []string{"template", "-n", name, chart}
	for _, v := range values {
		if !strings.HasPrefix(v, "--") {
			v = "--set=" + v
		}
		args = append(args, v)
	}
	var errs strings.Builder
	cmd := exec.Command(filepath.Join(isolated.BinDir(), helm), args...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s template %q: %v %s", helm, values, err, errs.String())
	}
	return string(out)
}

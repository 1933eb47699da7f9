// Package build builds the programs that the black-box tests run: the product's own, and those it is tested against.
// Programs of other projects are built once per version into the user's cache directory.
package build

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// tools are the CNI programs, except the plugin, at the versions in go.mod.
var tools = []string{"cnitool", "host-local", "bridge", "loopback", "ptp", "tuning"}

// pluginEnv is the environment variable with the path of a plugin binary to test instead of the one built from this
// tree.
const pluginEnv = "ISTIO_POD_NETWORK_PLUGIN"

// Root returns the path of the repository. The working directory must be in it.
func Root() string {
	root := "."
	for range 10 {
		if _, err := os.Stat(filepath.Join(root, "scripts", "kubernetes.sh")); err == nil {
			break
		}
		root = filepath.Join(root, "..")
	}
	return root
}

// CNI puts the tools and the plugin into bin, the later CNI_PATH.
func CNI(bin string) error {
	if err := Tools(bin); err != nil {
		return err
	}
	if prebuilt := os.Getenv(pluginEnv); prebuilt != "" {
		prebuilt, err := filepath.Abs(prebuilt)
		if err != nil {
			return err
		}
		return os.Symlink(prebuilt, filepath.Join(bin, "istio-pod-network"))
	}
	return Product(bin, "./plugin/istio-pod-network")
}

// Tools links cnitool and the reference plugins into bin.
func Tools(bin string) error { return linkFrom(bin, tools, "cni.sh") }

// Product builds programs of this repository into bin, with the flags of a release. Each program has the name of its
// package's directory.
func Product(bin string, packages ...string) error { return programs(Root(), bin+"/", packages) }

// Conformance builds programs of the conformance module into bin, with the same flags.
func Conformance(bin string, packages ...string) error {
	return programs(filepath.Join(Root(), "conformance"), bin+"/", packages)
}

// ConformanceAs builds one program of the conformance module to a path, with additional flags of go build.
func ConformanceAs(path, program string, flags ...string) error {
	return programs(filepath.Join(Root(), "conformance"), path, []string{program}, flags...)
}

// programs builds programs of the module in a directory. The path is a directory if it ends with a slash, else the
// file.
func programs(module, path string, packages []string, flags ...string) error {
	args := append([]string{"build", "-C", module, "-trimpath", "-ldflags", "-s -w", "-o", path}, flags...)
	cmd := exec.Command("go", append(args, packages...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w: %s", strings.Join(packages, " "), err, out)
	}
	return nil
}

// Istio links programs of Istio, or its charts, into bin, under the names that scripts/istio.sh gives them.
func Istio(bin string, names ...string) error { return linkFrom(bin, names, "istio.sh", names...) }

// Helm links helm3 and helm4 into bin.
func Helm(bin string) error {
	return linkFrom(bin, []string{"helm3", "helm4"}, "helm.sh")
}

// Link links programs of a real Kubernetes cluster into bin.
func Link(bin string, names ...string) error {
	return linkFrom(bin, names, "kubernetes.sh", names...)
}

// linkFrom runs a script that builds programs unless they exist and prints their directory, and links the programs into
// bin.
func linkFrom(bin string, names []string, script string, args ...string) error {
	cmd := exec.Command(filepath.Join(Root(), "scripts", script), args...)
	cmd.Stderr = os.Stderr // progress: it may take minutes
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("building %s: %w", strings.Join(names, " "), err)
	}
	for _, name := range names {
		if err := os.Symlink(filepath.Join(strings.TrimSpace(string(out)), name), filepath.Join(bin, name)); err != nil {
			return err
		}
	}
	return nil
}

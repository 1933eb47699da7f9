package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	builds "github.com/istio-pod-network/controller/conformance/internal/build"
)

// Names of the two binaries.
const (
	echoName   = "echo"
	pluginName = "istio-pod-network"
)

// build puts echo and the plugin into dir, built with the same flags, the ones of a release.
func (opts options) build(dir string) error {
	echo, plugin := filepath.Join(dir, "built-echo"), filepath.Join(dir, "built-plugin")
	if err := goBuild(echo, "conformance", "./bench/echo"); err != nil {
		return err
	}
	if opts.aa {
		plugin = echo
	} else if opts.plugin != "" {
		plugin = opts.plugin
	} else if err := goBuild(plugin, ".", "./plugin/istio-pod-network"); err != nil {
		return err
	}
	if err := install(echo, filepath.Join(dir, echoName)); err != nil {
		return err
	}
	return install(plugin, filepath.Join(dir, pluginName))
}

// install copies a binary in one write, as an installer does. Both must get into the page cache the same way: how the
// kernel laid the pages out there (the linker writes through a mapping) is visible in the time an exec takes.
func install(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

// goBuild compiles a package of the module in a directory of the repository.
func goBuild(out, module, pkg string) error {
	cmd := exec.Command("go", "-C", filepath.Join(builds.Root(), module), "build", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %q: %w: %s", pkg, err, output)
	}
	return nil
}

// binarySizes returns the size in bytes of both binaries.
func binarySizes(n *node) (map[string]int64, error) {
	sizes := map[string]int64{}
	for _, name := range []string{echoName, pluginName} {
		info, err := os.Stat(n.binary(name))
		if err != nil {
			return nil, err
		}
		sizes[name] = info.Size()
	}
	return sizes, nil
}

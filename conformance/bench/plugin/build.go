package main

import (
	"os"
	"path/filepath"

	"github.com/istio-pod-network/controller/conformance/internal/build"
)

// Names of the two binaries.
const (
	echoName   = "echo"
	pluginName = "istio-pod-network"
)

// build builds echo and the plugin into bin, both with the flags of a release.
func (opts options) build(bin string) error {
	built := filepath.Join(bin, "built")
	if err := os.Mkdir(built, 0o700); err != nil {
		return err
	}
	if err := build.Conformance(built, "./bench/echo"); err != nil {
		return err
	}
	if err := build.Product(built, "./plugin/istio-pod-network"); err != nil {
		return err
	}
	echo, plugin := filepath.Join(built, echoName), filepath.Join(built, pluginName)
	if opts.aa {
		plugin = echo
	} else if opts.plugin != "" {
		plugin = opts.plugin
	}
	if err := install(echo, filepath.Join(bin, echoName)); err != nil {
		return err
	}
	return install(plugin, filepath.Join(bin, pluginName))
}

// install copies a binary in one write, as an installer does. Both binaries must get into the page cache in the same
// way: the linker writes through a mapping, and exec(2) takes another time with such pages.
func install(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

// binarySizes returns the sizes of both binaries in bytes.
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

// Package buildinfo has the version of a program.
package buildinfo

import "runtime/debug"

// version is set by the linker, from git: -X github.com/istio-pod-network/controller/internal/buildinfo.version=v1.2.3
// (see the Makefile).
var version string

// Version returns the version that the linker has set, or else the module version in the build information, or else
// "(devel)".
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

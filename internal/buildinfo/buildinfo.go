// Package buildinfo tells which version a program is.
package buildinfo

import "runtime/debug"

// version is set by the linker, from git:
// -X github.com/istio-pod-network/controller/internal/buildinfo.version=v1.2.3 (see the Makefile).
var version string

// Version is what the linker was told, else what the Go command has noted of the module, else "(devel)".
func Version() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

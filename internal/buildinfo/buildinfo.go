// Package buildinfo tells which version a program is.
package buildinfo

import "runtime/debug"

// Version is what the linker was told (make build sets main.version from git), else what the Go command has noted of the
// module, else "(devel)".
func Version(linked string) string {
	if linked != "" {
		return linked
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

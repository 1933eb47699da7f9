// Package installtest reads configurations as a container runtime does, for the tests of the installer.
package installtest

import (
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/entry"
)

// Chained loads a list as a runtime with libcni 1.3 does, and fails the test unless our plugin is in it once, in the
// last place.
func Chained(t testing.TB, path string) *libcni.NetworkConfigList {
	t.Helper()
	list, err := libcni.NetworkConfFromFile(path)
	await.Must(t, err)
	count := 0
	for _, p := range list.Plugins {
		if p.Network.Type == entry.Type {
			count++
		}
	}
	if count != 1 || list.Plugins[len(list.Plugins)-1].Network.Type != entry.Type {
		t.Fatalf("%s: our plugin %d times, last is %q", path, count, list.Plugins[len(list.Plugins)-1].Network.Type)
	}
	return list
}

package plugin

import (
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/istio-pod-network/controller/plugin/netfilter"
	"github.com/istio-pod-network/controller/plugin/record"
)

// TestNamespaceID checks that the identity is that of the namespace at the path, not of the caller's, and is stable.
func TestNamespaceID(t *testing.T) {
	path, other := newNetNS(t), newNetNS(t)
	open := func(path string) record.NetNS {
		t.Helper()
		n, err := openNamespace(path)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		return n.id
	}
	own, err := record.CurrentNetNS()
	if err != nil {
		t.Fatal(err)
	}
	id := open(path)
	if again := open(path); again != id || id == own || id == open(other) || id.Boot() != own.Boot() {
		t.Errorf("identities %q and %q, of another %q, of the caller's %q", id, again, open(other), own)
	}
	if strings.Count(string(id), "/") != 2 || strings.HasSuffix(string(id), "/-") {
		t.Errorf("identity %q", id)
	}
}

// If a network namespace cannot be entered, the runtime is asked to try again: the error is not one of the rules.
func TestNotEntered(t *testing.T) {
	n, err := netfilter.Open(newNetNS(t))
	if err != nil {
		t.Fatal(err)
	}
	n.Close()
	if err := n.Within(func() error { return nil }); err == nil || codeOf(err) != types.ErrTryAgainLater {
		t.Errorf("%v has the code %d", err, codeOf(err))
	}
}

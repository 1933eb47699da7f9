package agent

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/istio-pod-network/controller/install"
)

// Since when the plugin is chained is what decides whether a pod bypasses the mesh: our entry may have been missing for a moment, and the pods
// of that moment came too early; a binary that was missing has let no pod pass.
func TestChainedSince(t *testing.T) {
	memory := filepath.Join(t.TempDir(), "state", memoryFile)
	fresh := func() *installation {
		m := newMetrics()
		version := func(context.Context) (string, error) { return "", nil }
		return newInstallation(install.Config{}, false, memory, version, m.installed, m.repairs, agenttest.Quiet())
	}
	i := fresh()
	pass := func(ready bool, causes ...install.Cause) time.Time {
		time.Sleep(time.Millisecond)
		i.report(install.Pass{Status: install.Status{Ready: ready}, Repaired: causes})
		return i.ChainedSince()
	}
	if !pass(false).IsZero() {
		t.Error("chained, and not ready")
	}
	first := pass(true, install.CauseEntryMissing)
	if first.IsZero() || !pass(true).Equal(first) || !pass(true, install.CauseBinaryMissing).Equal(first) {
		t.Error("chained since another time, although our entry was never missing")
	}
	if !pass(false).IsZero() || !pass(true).Equal(first) {
		t.Error("a pass that failed is not remembered")
	}
	i = fresh()
	if !pass(true).Equal(first) {
		t.Error("the next agent does not know since when")
	}
	for _, cause := range []install.Cause{install.CauseEntryMissing, install.CauseEntryChanged} {
		if again := pass(true, cause); !again.After(first) {
			t.Errorf("%s: chained since %v", cause, again)
		}
		first = i.ChainedSince()
	}
	if err := os.WriteFile(i.path, []byte("{torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if i = fresh(); pass(true).Before(first) {
		t.Error("a torn memory is believed")
	}
}

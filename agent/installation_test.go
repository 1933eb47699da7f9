package agent

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/install"
	"github.com/istio-pod-network/controller/plugin/record"
)

// Since when the plugin is chained is what a bypass is judged by: our entry may have been missing for a moment, and the pods
// of that moment came too early; a binary that was missing has let no pod pass.
func TestChainedSince(t *testing.T) {
	o := options{store: record.Store{Dir: filepath.Join(t.TempDir(), "state")}}
	fresh := func() *installation {
		return newInstallation(o, quiet(), newMetrics(), func(context.Context) (string, error) { return "", nil })
	}
	i := fresh()
	pass := func(ready bool, causes ...install.Cause) time.Time {
		time.Sleep(time.Millisecond)
		i.report(install.Pass{Status: install.Status{Ready: ready}, Repaired: causes})
		return i.chainedSince()
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
		first = i.chainedSince()
	}
	if err := os.WriteFile(i.path, []byte("{torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if i = fresh(); pass(true).Before(first) {
		t.Error("a torn memory is believed")
	}
}

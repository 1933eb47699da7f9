package output

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
)

// CheckFile leaves no trace.
func TestCheckFile(t *testing.T) {
	dir := t.TempDir()
	there, absent := filepath.Join(dir, "there"), filepath.Join(dir, "absent")
	if err := os.WriteFile(there, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{there: outcome.Well, absent: outcome.Well, os.DevNull: outcome.Well,
		dir: outcome.Misused, filepath.Join(absent, "x"): outcome.Misused, filepath.Join(there, "x"): outcome.Misused} {
		if err := CheckFile("--flag", name); outcome.StatusOf(err) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if text, err := os.ReadFile(there); string(text) != "text" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := os.Stat(absent); !os.IsNotExist(err) {
		t.Errorf("it is left: %v", err)
	}
}

package tracetest

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// WrongStep is a walk that is no kernel's, by one change of a source file of package trace.
type WrongStep struct{ What, File, Right, Wrong string }

// IsFound makes the walk wrong, and has a test of the package that runs find it. trace is where package trace is, and
// env is what the test is told beside.
func (s WrongStep) IsFound(t *testing.T, trace, test string, env ...string) {
	t.Helper()
	path, err := filepath.Abs(filepath.Join(trace, s.File))
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), s.Right); n != 1 {
		t.Fatalf("%q stands %d times in %s", s.Right, n, s.File)
	}
	dir := t.TempDir()
	changed, overlay := filepath.Join(dir, s.File), filepath.Join(dir, "overlay.json")
	replaced, err := json.Marshal(map[string]any{"Replace": map[string]string{path: changed}})
	wrong := strings.Replace(string(source), s.Right, s.Wrong, 1)
	err = errors.Join(err, os.WriteFile(changed, []byte(wrong), 0o600), os.WriteFile(overlay, replaced, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "test", "-vet=off", "-overlay", overlay, "-run", "^"+test+"$", ".")
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "--- FAIL: "+test) {
		t.Errorf("not found: %v\n%s", err, out)
	}
}

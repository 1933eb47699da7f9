package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
)

// Each of two runs at the same time has what it needs, and after both the limit is as before.
func TestRaise(t *testing.T) {
	path := filepath.Join(t.TempDir(), "max_user_instances")
	await.Must(t, os.WriteFile(path, []byte("128\n"), 0o600))
	is := func(when, want string) {
		t.Helper()
		if text, err := os.ReadFile(path); err != nil || string(text) != want {
			t.Errorf("%s: %q, %v, want %q", when, text, err, want)
		}
	}
	first, err := raise(path, 40)
	await.Must(t, err)
	second, err := raise(path, 400)
	await.Must(t, err)
	is("both run", "568")
	first()
	is("one has ended", "528")
	second()
	is("both have ended", "128")
}

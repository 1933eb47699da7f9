package kept

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A run that was interrupted in the middle of a line continues after the last complete one.
func TestGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "state.jsonl")
	want := func(of string, lines ...int) {
		t.Helper()
		gotOf, got, err := Read[string, int](path)
		if err != nil || gotOf != of || !slices.Equal(got, lines) {
			t.Errorf("%q with %v, error %v, want %q with %v", gotOf, got, err, of, lines)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // first without a file, then with an incomplete first line
		if _, _, err := Read[string, int](path); !errors.Is(err, ErrNothing) {
			t.Errorf("of nothing: %v", err)
		}
		must(os.MkdirAll(filepath.Dir(path), 0o755))
		must(os.WriteFile(path, []byte(`"nodes`), 0o644))
	}
	must(Begin(path, "nodes"))
	want("nodes")
	must(Add(path, 25))
	whole, err := os.ReadFile(path)
	must(err)
	must(os.WriteFile(path, append(whole, "5000000"...), 0o644))
	want("nodes", 25)
	must(Add(path, 50))
	want("nodes", 25, 50)
	must(os.WriteFile(path, []byte("\"nodes\"\nmany\n"), 0o644))
	if _, _, err := Read[string, int](path); err == nil || !strings.Contains(err.Error(), path+": line 2: ") {
		t.Errorf("a line that is none: %v", err)
	}
	must(Begin(path, "pods"))
	want("pods")
}

// With an empty path nothing is stored.
func TestNothingKept(t *testing.T) {
	if err := errors.Join(Begin("", 1), Add("", 2)); err != nil {
		t.Error(err)
	}
	if _, _, err := Read[int, int](""); !errors.Is(err, ErrNothing) {
		t.Error(err)
	}
}

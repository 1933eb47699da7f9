package record

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestProblem(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "state")}
	path := filepath.Join(s.Dir, problemFile)
	for _, why := range []string{"", "no ip6tables-restore", "no ip6tables-restore", "other", "", ""} {
		if err := s.SetProblem(why); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Problem(); got != why || err != nil {
			t.Errorf("%q, %v instead of %q", got, err, why)
		}
		if _, err := os.Stat(path); (err == nil) != (why != "") {
			t.Errorf("with %q the file is there: %v", why, err == nil)
		}
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("x", maxProblem+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Problem(); err == nil {
		t.Error("a file that is too long is read")
	}
	if err := s.SetProblem("other"); err != nil {
		t.Errorf("and not replaced: %v", err)
	}
}

package faulttable

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/build"
)

// The page has the table that the end-to-end test compares with.
func TestPage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(build.Root(), "docs", "troubleshooting.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "\n"+Page()+"\n") {
		t.Errorf("docs/troubleshooting.md lacks this table:\n%s", Page())
	}
}

// Names are there once, and findings are of commands that are compared.
func TestTable(t *testing.T) {
	var names []string
	for _, f := range Table {
		if slices.Contains(names, f.Name) {
			t.Errorf("%s is there twice", f.Name)
		}
		names = append(names, f.Name)
		for _, s := range f.Shows {
			if !slices.Contains(Commands, s.Command) || f.Of(s.Command).What != s.What || s.Exit == 0 || s.What == "" ||
				s.Next == "" {
				t.Errorf("%s: %+v", f.Name, s)
			}
		}
	}
	if len(names) < 12 {
		t.Errorf("%d faults", len(names))
	}
}

package pages

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/blocks"
	"github.com/istio-pod-network/controller/conformance/internal/build"
)

// pages returns the pages for readers, as paths in the repository.
func pages(t *testing.T) (list []string) {
	t.Helper()
	for _, pattern := range []string{"*.md", "docs/*.md", "chart/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(build.Root(), filepath.FromSlash(pattern)))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %q, %v", pattern, found, err)
		}
		for _, path := range found {
			name, err := filepath.Rel(build.Root(), path)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, name)
		}
	}
	return list
}

// Every section in blocks.OnCluster has a block to paste, and an end-to-end test names its page and heading.
func TestPastedOnCluster(t *testing.T) {
	tests, err := filepath.Glob(filepath.Join(build.Root(), "conformance", "e2e", "*_test.go"))
	if err != nil || len(tests) == 0 {
		t.Fatalf("%q, %v", tests, err)
	}
	var named strings.Builder
	for _, file := range tests {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		named.Write(text)
	}
	for page, sections := range blocks.OnCluster {
		all, _, err := blocks.Read(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, section := range sections {
			if !slices.ContainsFunc(all, func(b blocks.Block) bool {
				return b.Section == section && blocks.PastedOnCluster(page, b)
			}) {
				t.Errorf("%s has no block below %q that could be pasted", page, section)
			}
			if !strings.Contains(named.String(), strconv.Quote(page)) ||
				!strings.Contains(named.String(), strconv.Quote(section)) {
				t.Errorf("no end-to-end test pastes %q of %s", section, page)
			}
		}
	}
}

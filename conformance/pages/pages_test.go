package pages

import (
	"path/filepath"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/build"
)

// pages are those that a reader has, by their path in the repository.
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

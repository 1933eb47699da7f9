package docs

import (
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// All modules name one version of Go, and so does the base of the images: what is built with an older one differs, and
// what asks for a newer one is not built at all.
func TestGoVersion(t *testing.T) {
	line := regexp.MustCompile(`(?m)^go (\S+)$`)
	versions := map[string][]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && (entry.Name() == "dist" || entry.Name() == ".git") {
			return fs.SkipDir
		}
		if err == nil && entry.Name() == "go.mod" {
			version := line.FindStringSubmatch(read(t, path))
			if version == nil || strings.Contains(read(t, path), "\ntoolchain ") {
				t.Errorf("%s names no version of Go, or a toolchain", path)
				return nil
			}
			versions[version[1]] = append(versions[version[1]], path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(versions) != 1 {
		t.Errorf("versions of Go: %q", versions)
	}
	for version := range versions {
		minor := version[:strings.LastIndex(version, ".")]
		files, _ := filepath.Glob(filepath.Join(root, "Dockerfile.*"))
		for _, file := range files {
			if !strings.Contains(read(t, file), "ARG GO_VERSION="+minor+"\n") {
				t.Errorf("%s does not build with Go %s", file, minor)
			}
		}
	}
}

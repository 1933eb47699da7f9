package deps

import (
	"encoding/json"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// ofOwnVersions are modules that use old versions on purpose.
var ofOwnVersions = []string{"conformance/crio/libcni-1.1", "conformance/crio/libcni-1.2"}

// goMod is what the test uses of `go mod edit -json`.
type goMod struct {
	Go      string
	Require []struct{ Path, Version string }
	Replace []struct {
		Old struct{ Path string }
		New struct{ Path, Version string }
	}
}

// The modules of the repository require the same version of Go and of every module. What several of them use is then
// compiled only once, which halves the compilations.
func TestModulesAgree(t *testing.T) {
	const root = "../.."
	required, in := map[string]string{}, map[string]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains(notSources, entry.Name()):
			return fs.SkipDir
		case entry.Name() != "go.mod":
			return nil
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil || slices.Contains(ofOwnVersions, dir) {
			return err
		}
		for what, version := range versionsIn(t, dir) {
			if other, known := required[what]; known && other != version {
				t.Errorf("%s requires %s %s, %s requires %s", dir, what, version, in[what], other)
				continue
			}
			required[what], in[what] = version, dir
		}
		return nil
	})
	if err != nil || len(required) < 100 {
		t.Errorf("%v, %d versions", err, len(required))
	}
}

// versionsIn returns the versions that the go.mod in a directory of the repository selects.
func versionsIn(t *testing.T, dir string) map[string]string {
	t.Helper()
	var m goMod
	if err := json.Unmarshal([]byte(goTool(t, "mod", "edit", "-json", filepath.Join(dir, "go.mod"))), &m); err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	versions := map[string]string{"go": m.Go}
	for _, r := range m.Require {
		versions[r.Path] = r.Version
	}
	for _, r := range m.Replace {
		if _, required := versions[r.Old.Path]; required {
			versions[r.Old.Path] = r.New.Version
		}
	}
	for path := range versions {
		if strings.HasPrefix(path, "github.com/istio-pod-network/controller") {
			delete(versions, path) // the repository itself
		}
	}
	return versions
}

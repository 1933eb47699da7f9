package deps

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// maxPlugin is the budget of the stripped plugin binary in bytes: every pod reads it from disk.
const maxPlugin = 4_500_000

// listed is what the tests use of `go list -json`.
type listed struct {
	ImportPath   string
	Standard     bool
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
	Module       *struct{ Path string }
}

// goList lists the packages in a directory of the repository, with all their dependencies.
func goList(t *testing.T, dir string) map[string]listed {
	t.Helper()
	out := goTool(t, "list", "-C", dir, "-deps", "-json=ImportPath,Standard,Imports,TestImports,XTestImports,Deps,Module",
		"./...")
	packages := map[string]listed{}
	for decoder := json.NewDecoder(strings.NewReader(out)); ; {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages[p.ImportPath] = p
	}
}

// goTool runs the go command in the root of the module, for Linux.
func goTool(t *testing.T, args ...string) string {
	t.Helper()
	return goToolOn(t, system{"linux", runtime.GOARCH}, args...)
}

// goToolOn runs the go command in the root of the module, for a system, without cgo.
func goToolOn(t *testing.T, on system, args ...string) string {
	t.Helper()
	lookAtSources(t)
	var stderr strings.Builder
	c := exec.Command("go", args...)
	c.Dir, c.Stderr = filepath.Join("..", ".."), &stderr
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOOS="+on.os, "GOARCH="+on.arch)
	out, err := c.Output()
	if err != nil {
		t.Fatalf("go %q: %v\n%s", args, err, stderr.String())
	}
	return string(out)
}

// notSources are directories without sources. In bin and dist other programs write meanwhile.
var notSources = []string{".git", "bin", "dist", "testdata"}

// lookAtSources reads the name and time of every source file. Otherwise `go test` would return the cached result of
// other sources, because it does not see what a go command in a test reads.
func lookAtSources(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains(notSources, entry.Name()):
			return fs.SkipDir
		case filepath.Ext(path) == ".go", entry.Name() == "go.mod", entry.Name() == "go.sum":
			_, err = os.Stat(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestImports(t *testing.T) {
	packages := goList(t, ".")
	for _, r := range rules {
		p, present := packages[module+"/"+r.dir]
		if !present {
			t.Errorf("%s has a row but no Go files", r.dir)
			continue
		}
		for _, problem := range violations(r, p, packages) {
			t.Errorf("%s %s", r.dir, problem)
		}
	}
	for path, p := range packages {
		dir := strings.TrimPrefix(path, module+"/")
		if p.Module != nil && p.Module.Path == module &&
			!slices.ContainsFunc(rules, func(r rule) bool { return r.dir == dir }) {
			t.Errorf("%s has no row in rules: state what it may import", dir)
		}
	}
}

// violations returns the direct imports of a package that its row does not allow.
func violations(r rule, p listed, packages map[string]listed) []string {
	var found []string
	for _, path := range p.Imports {
		allowed := func(pattern string) bool { return matches(pattern, path) }
		if !packages[path].Standard && !slices.ContainsFunc(r.allowed, allowed) {
			found = append(found, "imports "+path+", which its row does not allow")
		}
		if packages[path].Standard && r.standard != nil && !slices.Contains(r.standard, path) {
			found = append(found, "imports "+path+", which is none of the few packages it needs: "+pure)
		}
	}
	return append(found, forbidden(r.forbidden, p, packages)...)
}

// forbidden returns the dependencies of a package for which there is a reason against them.
func forbidden(reasons map[string]string, p listed, packages map[string]listed) []string {
	var found []string
	for _, path := range p.Deps {
		for pattern, reason := range reasons {
			if matches(pattern, path) {
				found = append(found, "depends on "+path+" ("+strings.Join(chain(p, path, packages), " -> ")+"): "+reason)
			}
		}
	}
	return found
}

// chain returns the chain of imports from one package to another, for the error.
func chain(from listed, to string, packages map[string]listed) []string {
	for _, path := range from.Imports {
		if path == to {
			return []string{to}
		}
	}
	for _, path := range from.Imports {
		if next := packages[path]; slices.Contains(next.Deps, to) {
			return append([]string{path}, chain(next, to, packages)...)
		}
	}
	return []string{to}
}

// Every kind of row must catch what it is for.
func TestRulesCatch(t *testing.T) {
	packages := map[string]listed{
		"net/http":        {ImportPath: "net/http", Standard: true},
		"example.com/lib": {ImportPath: "example.com/lib", Imports: []string{"net/http"}, Deps: []string{"net/http"}},
		module + "/plugin": {ImportPath: module + "/plugin", Imports: []string{"example.com/lib"},
			Deps: []string{"example.com/lib", "net/http"}},
	}
	found := strings.Join(violations(rules[0], packages[module+"/plugin"], packages), "\n")
	for _, want := range []string{
		"imports example.com/lib, which its row does not allow",
		"depends on net/http (example.com/lib -> net/http): " + perPod,
	} {
		if !strings.Contains(found, want) {
			t.Errorf("%q does not say %q", found, want)
		}
	}
	for path, want := range map[string]bool{
		"k8s.io/client-go/kubernetes": true, "k8s.io": true, "k8s.iox/a": false, "xk8s.io/a": false,
	} {
		if matches("k8s.io/...", path) != want {
			t.Errorf("k8s.io/... matches %s: %t", path, !want)
		}
	}
	if !matches("plugin/redirect", module+"/plugin/redirect") || matches("plugin", module+"/plugin/redirect") ||
		matches("plugin", "plugin") {
		t.Error("a directory stands for its package in this module and nothing else")
	}
}

// The large test dependencies of the black-box tests are not in the product's go.mod.
func TestConformanceIsAModuleOfItsOwn(t *testing.T) {
	mod, err := os.ReadFile(filepath.Join("..", "..", "conformance", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(mod), "module "+module+"/conformance\n") {
		t.Errorf("conformance/go.mod names another module")
	}
	for path := range goList(t, ".") {
		if strings.HasPrefix(path, module+"/conformance") {
			t.Errorf("%s belongs to the product's module", path)
		}
	}
}

// The black-box tests run the built programs. They may import only the product's published contracts.
func TestConformanceImports(t *testing.T) {
	packages := goList(t, "conformance")
	for dir := range blackBoxes {
		if _, present := packages[module+"/"+dir]; !present {
			t.Errorf("%s has a row but no Go files", dir)
		}
	}
	for path, p := range packages {
		if p.Module == nil || p.Module.Path != module+"/conformance" {
			continue
		}
		dir := strings.TrimPrefix(path, module+"/")
		for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			known := func(contract string) bool { return matches(contract, imported) }
			if matches(module+"/...", imported) && !slices.ContainsFunc(contracts, known) {
				t.Errorf("%s imports %s, which is no contract of the product's", dir, imported)
			}
		}
		for _, problem := range forbidden(blackBoxes[dir], p, packages) {
			t.Errorf("%s %s", dir, problem)
		}
	}
}

func TestPluginSize(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "istio-pod-network")
	goTool(t, "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "./plugin/istio-pod-network")
	info, err := os.Stat(binary)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes, the budget is %d", info.Size(), maxPlugin)
	if info.Size() > maxPlugin {
		t.Errorf("the plugin is %d bytes too large", info.Size()-maxPlugin)
	}
}

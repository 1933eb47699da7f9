package deps

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

// systems are those that the operator's tool supports.
var systems = []system{
	{"linux", "amd64"}, {"linux", "arm64"}, {"darwin", "amd64"}, {"darwin", "arm64"}, {"windows", "amd64"},
	{"windows", "arm64"},
}

type system struct{ os, arch string }

// The operator's tool builds for every system that it supports: the type checker checks each of its packages and all
// their imports. Compiling would take minutes for each system.
func TestSystems(t *testing.T) {
	source := source{token.NewFileSet(), map[string]*ast.File{}}
	for _, s := range systems {
		for _, problem := range source.check(t, s, anywhere) {
			t.Errorf("%s/%s: %v", s.os, s.arch, problem)
		}
	}
	if found := source.check(t, system{"darwin", "arm64"}, []string{"plugin/netfilter/netlink"}); len(found) == 0 {
		t.Error("netlink builds for darwin: nothing is looked at")
	}
}

// sourcePackage is what the type checker needs of `go list -json`.
type sourcePackage struct {
	ImportPath, Dir string
	GoFiles         []string
	ImportMap       map[string]string
	Module          *struct{ Path, GoVersion string }
}

// source has the files of all systems, because most files belong to several systems.
type source struct {
	set    *token.FileSet
	parsed map[string]*ast.File
}

// check returns what is wrong with the packages of this module and their dependencies, on a system.
func (s source) check(t *testing.T, on system, dirs []string) (problems []error) {
	t.Helper()
	args := []string{"list", "-deps", "-json=ImportPath,Dir,GoFiles,ImportMap,Module"}
	for _, dir := range dirs {
		args = append(args, "./"+dir)
	}
	checked := map[string]*types.Package{"unsafe": types.Unsafe}
	for decoder := json.NewDecoder(strings.NewReader(goToolOn(t, on, args...))); ; {
		var p sourcePackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return problems
		} else if err != nil {
			t.Fatal(err)
		}
		if p.ImportPath == "unsafe" {
			continue
		}
		whole := p.Module != nil && p.Module.Path == module // declarations are enough for packages of others
		config := types.Config{
			Importer:         imported{p.ImportMap, checked},
			Sizes:            types.SizesFor("gc", on.arch),
			IgnoreFuncBodies: !whole,
			Error:            func(err error) { problems = append(problems, err) },
		}
		var files []*ast.File
		for _, name := range p.GoFiles {
			files = append(files, s.file(t, filepath.Join(p.Dir, name), whole))
		}
		checked[p.ImportPath], _ = config.Check(p.ImportPath, s.set, files, nil)
	}
}

// file returns a parsed file, with or without the bodies of its functions.
func (s source) file(t *testing.T, path string, bodies bool) *ast.File {
	t.Helper()
	if file := s.parsed[path]; file != nil {
		return file
	}
	file, err := parser.ParseFile(s.set, path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, declared := range file.Decls {
		if f, ok := declared.(*ast.FuncDecl); ok && f.Body != nil && !bodies {
			f.Body.List = nil
		}
	}
	s.parsed[path] = file
	return file
}

// imported are the packages that have been checked: `go list -deps` lists imports first.
type imported struct {
	renamed map[string]string // packages that the standard library vendors
	checked map[string]*types.Package
}

// Import returns the package with the path.
func (i imported) Import(path string) (*types.Package, error) {
	if renamed := i.renamed[path]; renamed != "" {
		path = renamed
	}
	if p := i.checked[path]; p != nil {
		return p, nil
	}
	return nil, errors.New("there is no package " + path)
}

package docs

import (
	"cmp"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Every Event's reason is in agent.md.
func TestEvents(t *testing.T) {
	page := read(t, "agent.md")
	for reason := range constants(t, filepath.Join(root, "agent", "patrol"), "warnings.go", "event") {
		if !strings.Contains(page, "`"+reason+"`") {
			t.Errorf("agent.md does not name the Event %s", reason)
		}
	}
}

// What troubleshooting.md has people look for in the first column of these tables is what the programs say; where a
// name or a value stands in it, the page has an ellipsis.
func TestTextsToLookFor(t *testing.T) {
	said := texts(t, "plugin", "agent", "install", "internal")
	quoted, rows := regexp.MustCompile("`([^`]+)`"), 0
	for _, heading := range []string{"A pod waits in its init container", "A pod's network cannot be made",
		"A pod is not redirected", "An agent is not ready"} {
		for line := range strings.Lines(section(t, "troubleshooting.md", heading)) {
			first, isRow := strings.CutPrefix(line, "| ")
			if !isRow {
				continue
			}
			rows++
			first, _, _ = strings.Cut(first, " | ")
			for _, text := range quoted.FindAllStringSubmatch(first, -1) {
				for fragment := range strings.SplitSeq(strings.TrimPrefix(text[1], "[-] "), "…") {
					fragment = strings.Trim(fragment, " :;")
					if !slices.ContainsFunc(said, func(literal string) bool { return strings.Contains(literal, fragment) }) &&
						!strings.HasPrefix(fragment, "pod-network-controller.istio.io/") {
						t.Errorf("%s: no program says %q", heading, fragment)
					}
				}
			}
		}
	}
	if rows < 20 {
		t.Errorf("%d rows", rows)
	}
}

// texts are the string literals below directories of the tree, those that are added up in one.
func texts(t *testing.T, dirs ...string) (all []string) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				e, isExpr := n.(ast.Expr)
				if !isExpr {
					return true
				}
				text := literal(e)
				if text != "" {
					all = append(all, text)
				}
				return text == "" // the parts of one are no texts
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// literal is the text of an expression, with an ellipsis for what is no literal of it; "" if it has none.
func literal(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if text, err := strconv.Unquote(e.Value); err == nil && e.Kind == token.STRING {
			return text
		}
	case *ast.BinaryExpr:
		left, right := literal(e.X), literal(e.Y)
		if e.Op == token.ADD && left+right != "" {
			return cmp.Or(left, "…") + cmp.Or(right, "…")
		}
	}
	return ""
}

// constants returns the string constants of a file whose names have the prefix and whose values are known without the
// packages that the file imports. Constants of the package's other files may be part of a value.
func constants(t *testing.T, dir, name, prefix string) map[string]bool {
	t.Helper()
	set := token.NewFileSet()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var parsed []*ast.File
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, file)
	}
	config := types.Config{Error: func(error) {}, IgnoreFuncBodies: true} // imports are not looked at
	checked, _ := config.Check(dir, set, parsed, nil)
	values := map[string]bool{}
	for _, word := range checked.Scope().Names() {
		c, isConst := checked.Scope().Lookup(word).(*types.Const)
		if !isConst || !strings.HasPrefix(word, prefix) || filepath.Base(set.Position(c.Pos()).Filename) != name ||
			c.Val().Kind() != constant.String {
			continue
		}
		values[constant.StringVal(c.Val())] = true
	}
	if len(values) == 0 {
		t.Fatalf("%s: no constant %s…", filepath.Join(dir, name), prefix)
	}
	return values
}

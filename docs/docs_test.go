// Package docs is the documentation. Its tests hold what can be compared with the code.
package docs

import (
	"cmp"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/plugin/redirect"
)

const root = ".."

// Every test that the documentation names is there: a promise whose test is gone is held by nobody.
func TestNamedTestsExist(t *testing.T) {
	defined := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains([]string{".git", "bin", "dist", "testdata"}, entry.Name()):
			return fs.SkipDir
		case strings.HasSuffix(path, "_test.go"):
			for _, match := range function.FindAllStringSubmatch(read(t, path), -1) {
				defined[match[1]] = true
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)\\w+)[/`]")
	for _, page := range pages(t) {
		for _, match := range named.FindAllStringSubmatch(read(t, page), -1) {
			if !defined[match[1]] {
				t.Errorf("%s names %s, and there is no such test", page, match[1])
			}
		}
	}
}

func pages(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob("*.md")
	if err != nil || len(list) < 5 {
		t.Fatalf("pages %q, error %v", list, err)
	}
	for _, name := range []string{"README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md"} {
		list = append(list, filepath.Join(root, name))
	}
	return list
}

// notAnExit are names that the code reads and by which nothing goes around a sidecar, and why.
var notAnExit = map[string]string{
	"not-kubernetes":      "no pod",
	"namespace-excluded":  "the operator's setting, not the pod's",
	"not-opted-in":        "the operator's selection; the namespace is its editor's",
	"opted-in-no-proxy":   "the wait fails",
	"agent-away":          "the operator's auxFailOpen; the wait holds the pod",
	"injected":            "redirected",
	"opted-in":            "redirected",
	"annotations-unknown": "no decision yet",
	"DROP_INVALID":        "drops more",
	"INVALID_DROP":        "drops more",
	"traffic.sidecar.istio.io/includeOutboundPorts":        "redirects more",
	"pod-network-controller.istio.io/includeOutboundPorts": "redirects more",
}

// What a pod's author can say to have traffic go around the sidecar is what a supervisor may want to forbid: the list
// in security.md has every annotation and variable that is read, and every reason for which a pod is left untouched,
// but for those above.
func TestWhatASupervisorForbids(t *testing.T) {
	list := section(t, "security.md", "What a supervisor should forbid")
	names := constants(t, filepath.Join(root, "plugin", "annotation"), "input.go", "")
	maps.Copy(names, constants(t, filepath.Join(root, "plugin", "redirect"), "proxy.go", "Env"))
	for _, reason := range redirect.Reasons {
		names[string(reason)] = true
	}
	for name := range names {
		listed := strings.Contains(list, "`"+name+"`") || strings.Contains(list, "`"+name+":")
		if _, harmless := notAnExit[name]; listed == harmless {
			t.Errorf("%s: in the list of security.md: %v; taken for harmless here: %v", name, listed, harmless)
		}
	}
	for name := range notAnExit {
		if !names[name] {
			t.Errorf("%s: nothing of that name is read", name)
		}
	}
}

// Every Event's reason is in agent.md.
func TestEvents(t *testing.T) {
	page := read(t, "agent.md")
	for reason := range constants(t, filepath.Join(root, "agent", "patrol"), "warnings.go", "event") {
		if !strings.Contains(page, "`"+reason+"`") {
			t.Errorf("agent.md does not name the Event %s", reason)
		}
	}
}

// Every Event's reason is in security.md's list of what else says the same, and what that names is there.
func TestForgedEvents(t *testing.T) {
	list := section(t, "security.md", "Events that a thief may forge")
	row := regexp.MustCompile("(?m)^\\| (`.*`) \\| (.*) \\|$")
	named, word := map[string]bool{}, regexp.MustCompile("`([^`]*)`")
	for _, match := range row.FindAllStringSubmatch(list, -1) {
		for _, event := range word.FindAllStringSubmatch(match[1], -1) {
			named[event[1]] = true
		}
		for kind, known := range map[string]func(string) bool{
			"metric `([^`]*)`": func(name string) bool {
				return strings.Contains(section(t, "agent.md", "Metrics"), "`"+name+"`")
			},
			"reason `([^`]*)`": func(name string) bool { return slices.Contains(redirect.Reasons, redirect.Reason(name)) },
			"error ([0-9]+)": func(code string) bool {
				return strings.Contains(section(t, "reference.md", "Errors"), "\n| "+code+" |")
			},
		} {
			for _, is := range regexp.MustCompile(kind).FindAllStringSubmatch(match[2], -1) {
				if !known(is[1]) {
					t.Errorf("%s: nothing is known of %s", match[1], is[0])
				}
			}
		}
	}
	events := constants(t, filepath.Join(root, "agent", "patrol"), "warnings.go", "event")
	if !maps.Equal(named, events) {
		t.Errorf("security.md lists %q; there are %q", slices.Sorted(maps.Keys(named)), slices.Sorted(maps.Keys(events)))
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

// mayDo is what security.md says of each right of the agent's account.
var mayDo = map[string]string{
	"pods get, list, watch":         "read pods",
	"pods/status patch":             "change the marks of pods on that node",
	"namespaces get, list, watch":   "and namespaces of the cluster",
	"nodes get":                     "a node by name",
	"events create, patch":          "write Events",
	"nodes get, list, watch, patch": "with `startupTaint`, read all nodes, and take that taint off that node",
	"pods delete":                   "with `repair: delete`, delete pods of that node",
}

// What the agent's account may do is in security.md, as what a thief of its token may.
func TestWhatAThiefMayDo(t *testing.T) {
	list := section(t, "security.md", "What each can do")
	rule := regexp.MustCompile(`resources: \[(.*)\]\n +verbs: \[(.*)\]`)
	templates, err := filepath.Glob(filepath.Join(root, "chart", "*", "templates", "rbac.yaml"))
	if err != nil || len(templates) != 1 {
		t.Fatalf("%q, %v", templates, err)
	}
	found := map[string]bool{}
	for _, file := range append(templates, filepath.Join(root, "agent", "rbac.yaml")) {
		for _, match := range rule.FindAllStringSubmatch(read(t, file), -1) {
			right := match[1] + " " + match[2]
			found[right] = true
			if words := mayDo[right]; words == "" || !strings.Contains(list, words) {
				t.Errorf("security.md does not say of a thief: %s (%q)", right, words)
			}
		}
	}
	for right := range mayDo {
		if !found[right] {
			t.Errorf("the agent has no right %q", right)
		}
	}
}

// section is what stands below a heading of a page, to the next.
func section(t *testing.T, page, heading string) string {
	t.Helper()
	_, text, found := strings.Cut(read(t, page), "\n## "+heading)
	if !found {
		t.Fatalf("%s has no section %q", page, heading)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

// Every line of security.md's tables about who can do what, and what fails, names what shows it.
func TestEveryClaimIsShown(t *testing.T) {
	for heading, open := range map[string]string{"What each can do": "root on a node", "What fails": ""} {
		rows, shown := 0, regexp.MustCompile("`(Test\\w+|make \\w+)`")
		for line := range strings.Lines(section(t, "security.md", heading)) {
			cells := strings.Split(strings.Trim(line, "| \n"), " | ")
			if !strings.HasPrefix(line, "| ") || strings.HasSuffix(cells[len(cells)-1], "shown by") || cells[0] == open {
				continue
			}
			rows++
			if !shown.MatchString(cells[len(cells)-1]) {
				t.Errorf("no test shows: %s", line)
			}
		}
		if rows < 5 {
			t.Errorf("%s: %d rows", heading, rows)
		}
	}
}

// known are the words with which compatibility.md says how it is known that something works, and whether a command or a
// test has to show it.
var known = map[string]bool{
	"tested by ": true, "by driver": true, "by layout only": true, "by source only": false, "cannot work": false,
}

// Every line of compatibility.md says how it is known, and what shows it is there.
func TestCompatibility(t *testing.T) {
	page, rows := read(t, "compatibility.md"), 0
	header := regexp.MustCompile(`(?m)^\|.*\| known \|\n\|[-|]+\|\n((?:\|.*\|\n)+)`)
	shown := regexp.MustCompile("`(Test\\w+|make \\w+.*?|(?:scripts/|go ).*?)`")
	for _, table := range header.FindAllStringSubmatch(page, -1) {
		for row := range strings.Lines(table[1]) {
			rows++
			cells := strings.Split(strings.Trim(strings.ReplaceAll(row, `\|`, ","), "|\n"), "|")
			last, ok := strings.TrimSpace(cells[len(cells)-1]), false
			for words, shows := range known {
				ok = ok || strings.HasPrefix(last, words) && (!shows || shown.MatchString(last))
			}
			if !ok {
				t.Errorf("how is it known? %s", row)
			}
		}
	}
	if tables := strings.Count(page, " known |\n"); rows < 50 || tables != len(header.FindAllString(page, -1)) {
		t.Errorf("%d rows, of %d tables", rows, tables)
	}
}

// Every target of make that the documentation names is there, and so is what RUN= selects of it.
func TestNamedTargetsExist(t *testing.T) {
	makefile := read(t, filepath.Join(root, "Makefile"))
	target := regexp.MustCompile("`make ([a-z0-9-]+)((?: [^`]*)?)`")
	run := regexp.MustCompile(`RUN='?([^' ]+)`)
	files, err := filepath.Glob(filepath.Join(root, "conformance", "e2e", "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%q, %v", files, err)
	}
	var tests strings.Builder
	for _, file := range files {
		tests.WriteString(read(t, file))
	}
	for _, page := range pages(t) {
		for _, match := range target.FindAllStringSubmatch(read(t, page), -1) {
			if !strings.Contains(makefile, "\n"+match[1]+": ## ") {
				t.Errorf("%s: there is no make %s", page, match[1])
			}
			for _, pattern := range run.FindAllStringSubmatch(match[2], -1) {
				for name := range strings.SplitSeq(strings.ReplaceAll(pattern[1], `\|`, "|"), "|") {
					if strings.HasPrefix(name, "Test") && name != "TestName" && !strings.Contains(tests.String(), "\nfunc "+name) {
						t.Errorf("%s: no scenario of make e2e is %s", page, name)
					}
				}
			}
		}
	}
}

// Every end-to-end scenario has a row with what it has measured, and every row is of a scenario.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "conformance", "e2e", "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%q, %v", files, err)
	}
	there, listed := map[string]bool{}, map[string]bool{}
	for _, file := range files {
		for _, match := range regexp.MustCompile(`(?m)^func (Test\w+)\(t `).FindAllStringSubmatch(read(t, file), -1) {
			there[match[1]] = true
		}
	}
	for _, match := range regexp.MustCompile(`(?m)^(Test\w+)\S* +ok `).FindAllStringSubmatch(read(t, "scenarios.md"), -1) {
		listed[match[1]] = true
		if !there[match[1]] {
			t.Errorf("scenarios.md: no scenario is %s", match[1])
		}
	}
	for name := range there {
		if !listed[name] {
			t.Errorf("scenarios.md has no row of %s: make e2e RUN=%s ROWS=write adds it", name, name)
		}
	}
}

// No command of the documentation upgrades Istio by accident: one that names a chart of Istio's names its version. None
// keeps the defaults of an older chart under a newer one. One that renders this chart says where the images are, and
// one that uninstalls, by which values it was installed.
func TestHelmCommands(t *testing.T) {
	charts, err := filepath.Glob(filepath.Join(root, "chart", "*", "README.md"))
	if err != nil || len(charts) != 1 {
		t.Fatalf("%q, %v", charts, err)
	}
	command := regexp.MustCompile("(?m)\\bhelm[34]? (?:install|upgrade|template)\\b(?:[^\\n`]*\\\\\\n)*[^\\n`]*")
	istios, version := regexp.MustCompile(`\bistio/[a-z]`), regexp.MustCompile(`--version[ =]"?[$\w]`)
	ours := regexp.MustCompile(`(?:chart|istio-pod-network-controller)/istio-pod-network-controller`)
	values := regexp.MustCompile(`image\.registry=| (?:-f|--values)[ =]|--reset-then-reuse-values`)
	found := 0
	for _, page := range append(pages(t), charts...) {
		for _, c := range command.FindAllString(read(t, page), -1) {
			c, _, _ = strings.Cut(c, " | ")
			if istios.MatchString(c) {
				found++
				if !version.MatchString(c) {
					t.Errorf("%s: which version of Istio? %s", page, c)
				}
			}
			if ours.MatchString(c) && !values.MatchString(c) {
				t.Errorf("%s: nobody can pull images without a registry: image.registry or a file of values: %s", page, c)
			}
			if strings.Contains(c, "uninstall=true") && !strings.Contains(c, " -f ") {
				t.Errorf("%s: by which values was it installed? It would look in the wrong directories: %s", page, c)
			}
			if strings.Contains(c, "--reuse-values") {
				t.Errorf("%s: with --reset-then-reuse-values a newer chart has its own defaults: %s", page, c)
			}
		}
	}
	if found < 10 {
		t.Errorf("%d commands with charts of Istio's", found)
	}
}

// The images hold the project's programs, and no shell or anything else of another image.
func TestImagesAreEmpty(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(root, "Dockerfile.*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, file := range files {
		stages := strings.Split("\n"+read(t, file), "\nFROM ")
		last := strings.Split(stages[len(stages)-1], "\n")
		from, copies := last[0], []string{}
		for _, line := range last {
			if word, _, _ := strings.Cut(line, " "); word == "COPY" || word == "ADD" || word == "RUN" {
				copies = append(copies, line)
			}
		}
		if from != "scratch" || !slices.Equal(copies, []string{"COPY --from=build /out/ /", "COPY LICENSE /LICENSE"}) {
			t.Errorf("%s: the image is made from %s with %q", file, from, copies)
		}
	}
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

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

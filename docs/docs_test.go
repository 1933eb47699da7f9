// Package docs is the documentation. Its tests hold what can be compared with the code.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
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

// What a Dockerfile takes from the tree is in the build's context: .dockerignore leaves out all but what it names.
func TestContextHasSources(t *testing.T) {
	named := strings.Split(read(t, filepath.Join(root, ".dockerignore")), "\n")
	files, err := filepath.Glob(filepath.Join(root, "Dockerfile.*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("%q, %v", files, err)
	}
	for _, file := range append(files, filepath.Join(root, "conformance", "shop", "Dockerfile")) {
		found := 0
		for line := range strings.Lines(read(t, file)) {
			words := strings.Fields(line)
			if len(words) < 3 || words[0] != "COPY" || strings.HasPrefix(words[1], "--from=") {
				continue
			}
			for _, source := range words[1 : len(words)-1] {
				found++
				if !slices.Contains(named, "!"+source) {
					t.Errorf("%s: .dockerignore leaves out %s", file, source)
				}
			}
		}
		if found == 0 {
			t.Errorf("%s takes nothing", file)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

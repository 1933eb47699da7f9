package docs

import (
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// All modules name one version of Go, and the base of the images and the forge the same: what is built with another one
// differs, and what asks for a newer one is not built at all.
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
		if strings.Count(version, ".") != 2 {
			t.Errorf("Go %s is no patch release", version)
		}
		files, _ := filepath.Glob(filepath.Join(root, "Dockerfile.*"))
		for _, file := range append(files, filepath.Join(root, "conformance", "shop", "Dockerfile")) {
			if !strings.Contains(read(t, file), "ARG GO_VERSION="+version+"\n") {
				t.Errorf("%s does not build with Go %s", file, version)
			}
		}
	}
	for _, file := range workflows(t) {
		text := read(t, file)
		asked := strings.Count(text, "\n        go-version-file: go.mod\n")
		if asked == 0 || asked != strings.Count(text, "uses: actions/setup-go@") {
			t.Errorf("%s does not run with the Go of go.mod", file)
		}
	}
}

// What the operator's tool takes for the chart's, as it cannot ask it, is the chart's.
func TestCheckKnowsTheChart(t *testing.T) {
	chart := filepath.Join("chart", "istio-pod-network-controller")
	check := filepath.Join("agent", "ctl", "check", "kubernetes.go")
	for _, same := range [][2]struct{ file, is string }{
		{{filepath.Join(chart, "Chart.yaml"), `(?m)^kubeVersion: ">=(.+)\.0-0"$`},
			{check, `(?m)^var oldest = version\.MustParseGeneric\("(.+)"\)$`}},
		{{filepath.Join(chart, "values.yaml"), `(?m)^startupTaint:\n(?:  .*\n)+?  key: (.+)$`},
			{check, `(?m)^const usualTaint = "(.+)"$`}},
	} {
		var found [2]string
		for i, its := range same {
			if match := regexp.MustCompile(its.is).FindStringSubmatch(read(t, filepath.Join(root, its.file))); match != nil {
				found[i] = match[1]
			}
		}
		if found[0] == "" || found[0] != found[1] {
			t.Errorf("%s has %q, and %s %q", same[0].file, found[0], same[1].file, found[1])
		}
	}
}

// Every decision has a day, and says what would have it decided again.
func TestDecisions(t *testing.T) {
	row := regexp.MustCompile(`^\| .+ \| 20\d\d-\d\d-\d\d \| .+ \|$`)
	rows := 0
	for line := range strings.Lines(read(t, "decisions.md")) {
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| decision |") {
			continue
		}
		if rows++; !row.MatchString(strings.TrimSpace(line)) {
			t.Errorf("when, and until when? %s", line)
		}
	}
	if rows < 10 {
		t.Errorf("%d decisions", rows)
	}
}

// The page says how much space the first make test asks for.
func TestSpace(t *testing.T) {
	script := read(t, filepath.Join(root, "scripts", "test.sh"))
	asked := regexp.MustCompile(`\bneed_space (\d+) `).FindStringSubmatch(script)
	if asked == nil || !strings.Contains(read(t, "testing.md"), "`make test` wants "+asked[1]+" GiB free") {
		t.Errorf("test.sh asks for %q, and testing.md says something else", asked)
	}
}

// workflows are the forge's.
func workflows(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, ".github", "workflows", "*.yml"))
	if err != nil || len(files) < 2 {
		t.Fatalf("%q, %v", files, err)
	}
	return files
}

// What the forge runs is what anybody runs, and what it takes of others is what it was when it was read: an action is
// a commit, beside which stands its version.
func TestForge(t *testing.T) {
	workflow := ""
	action := regexp.MustCompile(`^ +(- )?uses: \S+@[0-9a-f]{40}  # v\d+\.\d+\.\d+$`)
	for _, file := range workflows(t) {
		text := read(t, file)
		workflow += text
		for line := range strings.Lines(text) {
			if strings.Contains(line, "uses:") && !action.MatchString(strings.TrimSuffix(line, "\n")) {
				t.Errorf("%s: no commit with its version: %s", file, line)
			}
		}
		if !strings.Contains(text, "\npermissions:") {
			t.Errorf("%s has every right that there is", file)
		}
	}
	for _, command := range []string{"- run: .ci/run\n", "- run: make vulncheck\n", "- run: make release VERSION=",
		"fetch-depth: 0  # ", "- run: make release-check VERSION=", "scripts/release.sh push --version "} {
		if !strings.Contains(workflow, command) {
			t.Errorf("no workflow has %q", command)
		}
	}
	for _, name := range []string{"OWNERS", ".editorconfig", ".github/PULL_REQUEST_TEMPLATE.md",
		".github/ISSUE_TEMPLATE/defect.yml"} {
		if len(read(t, filepath.Join(root, name))) < 100 {
			t.Errorf("%s says nothing", name)
		}
	}
}

// Prow reads accounts and aliases in OWNERS, and accounts in the aliases. A team's name is an account that nobody has.
func TestOwners(t *testing.T) {
	names := regexp.MustCompile(`(?m)^ *- (.*)$`)
	aliases := read(t, filepath.Join(root, "OWNERS_ALIASES"))
	for _, file := range []string{"OWNERS", "OWNERS_ALIASES"} {
		found := names.FindAllStringSubmatch(read(t, filepath.Join(root, file)), -1)
		if len(found) < 2 {
			t.Errorf("%s names %d", file, len(found))
		}
		for _, name := range found {
			if !regexp.MustCompile(`^[A-Za-z0-9]+(-[A-Za-z0-9]+)*$`).MatchString(name[1]) {
				t.Errorf("%s: %q is neither an account nor an alias", file, name[1])
			}
			if file == "OWNERS" && !strings.Contains(aliases, "\n  "+name[1]+":\n") {
				t.Errorf("OWNERS_ALIASES does not say who %s is", name[1])
			}
		}
	}
}

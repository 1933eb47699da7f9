package docs

import (
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// releases is the list of all that was released, as scripts/release.sh record writes it.
type releases struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Releases   []release `json:"releases"`
}

type release struct {
	Version, Commit, Date, Go string
	Artifacts, Files          map[string]string
}

func parseReleases(t *testing.T, text string) (l releases) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &l); err != nil {
		t.Fatal(err)
	}
	return l
}

// changed are the versions of an earlier list that another one does not have as they were.
func (l releases) changed(now releases) (list []string) {
	for _, was := range l.Releases {
		if !slices.ContainsFunc(now.Releases, func(is release) bool { return reflect.DeepEqual(is, was) }) {
			list = append(list, was.Version)
		}
	}
	return list
}

// problems are what is wrong with a list, with the changelog and the version of the tree beside it.
func (l releases) problems(changelog, tree string) (list []string) {
	bad := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if l.APIVersion != "pod-network-controller.istio.io/v1" || l.Kind != "ReleaseList" {
		bad("it is %s %s", l.APIVersion, l.Kind)
	}
	sum, later := regexp.MustCompile(`^(sha256:)?[0-9a-f]{64}$`), tree
	for _, r := range l.Releases {
		for what, form := range map[string]struct{ text, pattern string }{
			"version": {r.Version, `\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?`}, "commit": {r.Commit, `[0-9a-f]{40}`},
			"date": {r.Date, `20\d\d-[01]\d-[0-3]\d`}, "go": {r.Go, `go1\.\d+(\.\d+)?`},
		} {
			if !regexp.MustCompile("^" + form.pattern + "$").MatchString(form.text) {
				bad("%s: %s %q", r.Version, what, form.text)
			}
		}
		if !older(r.Version, later) {
			bad("%s comes before %s", r.Version, later)
		}
		later = r.Version
		if !strings.Contains(changelog, "\n## "+r.Version+" - "+r.Date+"\n") {
			bad("%s: the changelog does not know it, as of %s", r.Version, r.Date)
		}
		if len(r.Artifacts) != 3 || len(r.Files) != 15 {
			bad("%s: %d artifacts and %d files", r.Version, len(r.Artifacts), len(r.Files))
		}
		for _, values := range []map[string]string{r.Artifacts, r.Files} {
			for _, name := range slices.Sorted(maps.Keys(values)) {
				if !sum.MatchString(values[name]) {
					bad("%s: %s has the checksum %q", r.Version, name, values[name])
				}
			}
		}
	}
	return list
}

// older says whether a version comes before another. A pre-release is older than its release.
func older(a, b string) bool {
	var left, right [3]int
	coreA, preA, _ := strings.Cut(a, "-")
	coreB, preB, _ := strings.Cut(b, "-")
	_, _ = fmt.Sscanf(coreA, "%d.%d.%d", &left[0], &left[1], &left[2])
	_, _ = fmt.Sscanf(coreB, "%d.%d.%d", &right[0], &right[1], &right[2])
	if order := slices.Compare(left[:], right[:]); order != 0 {
		return order < 0
	}
	return preB == "" && preA != "" || preA != "" && preA < preB
}

// Each release in the list is one that can be verified, the newest first, and the tree is a later one.
func TestReleases(t *testing.T) {
	l := parseReleases(t, read(t, "releases.json"))
	match := regexp.MustCompile(`(?m)^version: (\S+)$`).FindStringSubmatch(
		read(t, "../chart/istio-pod-network-controller/Chart.yaml"))
	if match == nil {
		t.Fatal("the chart has no version")
	}
	for _, problem := range l.problems(read(t, "../CHANGELOG.md"), match[1]) {
		t.Error(problem)
	}
}

// What has been in the list stays there as it is: so says the history, as far as this clone has it.
func TestReleasesStay(t *testing.T) {
	git := func(args ...string) (string, error) {
		out, err := exec.Command("git", append([]string{"-C", ".."}, args...)...).Output()
		return string(out), err
	}
	commits, err := git("log", "--format=%H", "--", "docs/releases.json")
	if err != nil {
		t.Skip("this is no clone: ", err)
	}
	now := parseReleases(t, read(t, "releases.json"))
	for commit := range strings.FieldsSeq(commits) {
		text, err := git("show", commit+":docs/releases.json")
		if err != nil {
			continue // it was not there yet, or taken away for a while
		}
		for _, version := range parseReleases(t, text).changed(now) {
			t.Errorf("%s is not as it was in commit %s: a release never changes, and a mend is another version", version, commit)
		}
	}
}

// A change of each kind is noticed.
func TestReleasesChanged(t *testing.T) {
	const one = `{"version": "1.1.0", "commit": "a", "date": "2026-01-02", "go": "go1.26.6", ` +
		`"artifacts": {"chart": "sha256:0"}, "files": {"a": "1", "b": "2"}}`
	list := func(entries ...string) releases {
		return parseReleases(t, `{"releases": [`+strings.Join(entries, ", ")+`]}`)
	}
	before, next := list(one), `{"version": "1.2.0"}`
	if got := before.changed(list(next, one)); got != nil {
		t.Errorf("changed by one more: %q", got)
	}
	for _, c := range []struct{ from, to string }{
		{`"a", "date"`, `"b", "date"`}, {"2026-01-02", "2026-01-03"}, {"go1.26.6", "go1.26.7"}, {"sha256:0", "sha256:1"},
		{`"b": "2"`, `"b": "3"`}, {`, "b": "2"`, ""}, {"1.1.0", "1.1.1"}, {one, next},
	} {
		if got := before.changed(list(next, strings.Replace(one, c.from, c.to, 1))); !slices.Equal(got, []string{"1.1.0"}) {
			t.Errorf("%s for %s: changed are %q", c.to, c.from, got)
		}
	}
}

// The pages, the manifests and what Artifact Hub shows name the version of the tree: whoever pastes it gets images that
// the chart looks for.
func TestVersionOfTheTree(t *testing.T) {
	chart := read(t, "../chart/istio-pod-network-controller/Chart.yaml")
	tree := regexp.MustCompile(`(?m)^version: (\S+)$`).FindStringSubmatch(chart)
	named := regexp.MustCompile(`(?:istio-pod-network-(?:agent|plugin):|istio-pod-network-controller --version |` +
		`images\.sh --version |(?m:^VERSION=)|(?m:^istio-pod-network-controller )|(?m:^appVersion: "))` +
		`(\d+\.\d+\.\d+[0-9A-Za-z.-]*)`)
	found := 0
	for _, file := range append(all(t), "istio/wait.yaml", "istio/replace-init.yaml",
		"../chart/istio-pod-network-controller/Chart.yaml") {
		if file == "releasing.md" { // which is about any version
			continue
		}
		for _, match := range named.FindAllStringSubmatch(read(t, file), -1) {
			if found++; match[1] != tree[1] {
				t.Errorf("%s: %s, and the chart's version is %s", file, match[0], tree[1])
			}
		}
	}
	if found < 10 {
		t.Errorf("%d places that name a version", found)
	}
}

// The first test refuses what it should.
func TestReleasesRefused(t *testing.T) {
	sums := func(n int, value string) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf("%q: %q", fmt.Sprint("f", i), value))
		}
		return "{" + strings.Join(list, ", ") + "}"
	}
	good := `{"apiVersion": "pod-network-controller.istio.io/v1", "kind": "ReleaseList", "releases": [` +
		`{"version": "1.1.0", "commit": "` + strings.Repeat("a", 40) + `", "date": "2026-01-02", "go": "go1.26.6", ` +
		`"artifacts": ` + sums(3, "sha256:"+strings.Repeat("0", 64)) + `, ` +
		`"files": ` + sums(15, strings.Repeat("1", 64)) + `}]}`
	for _, c := range []struct{ from, to, tree, want string }{
		{"", "", "1.2.0", ""},
		{"", "", "1.1.0", "1.1.0 comes before 1.1.0"},
		{"", "", "1.1.0-rc.1", "1.1.0 comes before 1.1.0-rc.1"},
		{"ReleaseList", "List", "1.2.0", "it is "},
		{"aaaa", "main", "1.2.0", "commit"},
		{"2026-01-02", "yesterday", "1.2.0", "date"},
		{`"go1.26.6"`, `"1.26.6"`, "1.2.0", `go "1.26.6"`},
		{"sha256:00", "", "1.2.0", "f0 has the checksum"},
		{`"f14": `, `"f0": `, "1.2.0", "14 files"},
		{`"1.1.0"`, `"1.0.1"`, "1.2.0", "the changelog does not know it"},
		{"2026-01-02", "2026-01-03", "1.2.0", "the changelog does not know it, as of 2026-01-03"},
	} {
		var l releases
		if err := json.Unmarshal([]byte(strings.ReplaceAll(good, c.from, c.to)), &l); c.from != "" && err != nil {
			t.Fatal(err)
		} else if c.from == "" {
			if err := json.Unmarshal([]byte(good), &l); err != nil {
				t.Fatal(err)
			}
		}
		got := strings.Join(l.problems("\n## 1.1.0 - 2026-01-02\n", c.tree), "\n")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%q for %q, tree %s: %q, want %q", c.to, c.from, c.tree, got, c.want)
		}
	}
}

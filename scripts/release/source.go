package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// home is the project's URL.
const home = "https://github.com/istio-pod-network/controller"

// versionForm matches versions that are valid as a registry's tag and for Helm.
var versionForm = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?$`)

// source is what a release is built from.
type source struct {
	root, version string
	commit        string
	created       time.Time // time of the commit
	toolchain     string    // version of Go, such as go1.26.6
	chart         chart
	notes         string // the version's section of the changelog
}

// chart is what the release needs of the chart.
type chart struct {
	dir     string // path in the repository
	raw     map[string]any
	Name    string
	Version string
	App     string
}

// readChart reads Chart.yaml of the only chart.
func readChart(root string) (c chart, err error) {
	found, err := filepath.Glob(filepath.Join(root, "chart", "*", "Chart.yaml"))
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("%s is no repository with one chart in chart/", root)
	}
	if err != nil {
		return c, err
	}
	text, err := os.ReadFile(found[0])
	if err == nil {
		err = yaml.Unmarshal(text, &c.raw)
	}
	if err != nil {
		return c, fmt.Errorf("reading %q: %w", found[0], err)
	}
	c.dir = path.Join("chart", filepath.Base(filepath.Dir(found[0])))
	c.Name, _ = c.raw["name"].(string)
	c.Version, _ = c.raw["version"].(string)
	c.App, _ = c.raw["appVersion"].(string)
	return c, nil
}

// readSource reads the checked-out commit. It returns an error if this cannot be a release of the version.
func (o options) readSource(ctx context.Context) (s source, err error) {
	s.root, s.version = o.root, o.version
	changed, err := o.git(ctx, "status", "--porcelain")
	if err != nil {
		return s, err
	}
	if changed != "" {
		return s, notWellf("the tree is not a commit, and a release is one; commit or remove:\n%s", changed)
	}
	if s.commit, err = o.git(ctx, "rev-parse", "HEAD"); err != nil {
		return s, err
	}
	text, err := o.git(ctx, "log", "-1", "--format=%ct")
	if err != nil {
		return s, err
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return s, err
	}
	s.created = time.Unix(seconds, 0).UTC()
	goVersion := exec.CommandContext(ctx, "go", "env", "GOVERSION")
	goVersion.Dir = s.root
	out, err := goVersion.Output()
	if err != nil {
		return s, fmt.Errorf("asking Go for its version: %w", err)
	}
	s.toolchain = strings.TrimSpace(string(out))
	if s.chart, err = readChart(s.root); err != nil {
		return s, err
	}
	if s.chart.Version != s.version || s.chart.App != s.version {
		return s, notWellf("%s/Chart.yaml: version %q and appVersion %q; the release is %q", s.chart.dir, s.chart.Version,
			s.chart.App, s.version)
	}
	changes, err := os.ReadFile(filepath.Join(s.root, "CHANGELOG.md"))
	if err != nil {
		return s, err
	}
	s.notes, err = section(string(changes), s.version)
	return s, err
}

// section returns the section of a version in a changelog.
func section(changelog, version string) (string, error) {
	var text strings.Builder
	inside := false
	for line := range strings.Lines(changelog) {
		if heading, is := strings.CutPrefix(line, "## "); is {
			named := strings.Trim(strings.Fields(heading + " -")[0], "[]")
			inside = named == version
			continue
		}
		if inside {
			text.WriteString(line)
		}
	}
	if strings.TrimSpace(text.String()) == "" {
		return "", notWellf("CHANGELOG.md says nothing of %s: give it a section \"## %s\"", version, version)
	}
	return strings.TrimSpace(text.String()) + "\n", nil
}

// git runs git in the repository and returns its output.
func (o options) git(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "git", append([]string{"-C", o.root}, args...)...).Output()
	if err != nil {
		return "", fmt.Errorf("git %s in %s: %w", strings.Join(args, " "), o.root, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// settled are variables that would change the compiler's output, and the key.
var settled = []string{"GOOS", "GOARCH", "GOAMD64", "GOARM64", "GOEXPERIMENT", "GOFIPS140", "GOFLAGS", "GOWORK",
	"GODEBUG", "CGO_ENABLED", "SOURCE_DATE_EPOCH", "COSIGN_PRIVATE_KEY", "COSIGN_PASSWORD"}

// environment returns the environment of a build step: the same on every machine, and without the key.
func (s source) environment(more ...string) (list []string) {
	for _, pair := range os.Environ() {
		key, _, _ := strings.Cut(pair, "=")
		known := false
		for _, name := range settled {
			known = known || name == key
		}
		if !known {
			list = append(list, pair)
		}
	}
	return append(append(list, "CGO_ENABLED=0", "GOFLAGS=-trimpath", "GOAMD64=v1", "GOARM64=v8.0", "GOFIPS140=off",
		"GOWORK=off", "SOURCE_DATE_EPOCH="+strconv.FormatInt(s.created.Unix(), 10)), more...)
}

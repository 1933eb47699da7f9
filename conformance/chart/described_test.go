package chart

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/chartdocs"
)

// schemaLeaves returns the full names of what the schema allows.
func schemaLeaves(prefix string, node map[string]any) (names []string) {
	properties, isObject := node["properties"].(map[string]any)
	if !isObject {
		return []string{prefix}
	}
	for key, below := range properties {
		names = append(names, schemaLeaves(strings.TrimPrefix(prefix+"."+key, "."), below.(map[string]any))...)
	}
	return names
}

// without are values of 2018 that are accepted but have no effect. They are in the schema alone.
var without = []string{"containerRuntime", "crioSocket", "runcRoot", "image.runAsUser", "ingress"}

// Every value in the schema is in values.yaml, whose comments describe it there and in the README (package chartdocs),
// or is of 2018.
func TestValuesAreDescribed(t *testing.T) {
	values, err := chartdocs.Read([]byte(readText(t, filepath.Join(dir(), "values.yaml"))))
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	read(t, filepath.Join(dir(), "values.schema.json"), &schema)
	listed := append([]string{"global"}, without...)
	for _, v := range values {
		if slices.Contains(without, v.Name) {
			t.Errorf("%s has no effect and is in values.yaml", v.Name)
		}
		listed = append(listed, v.Name)
	}
	for _, name := range schemaLeaves("", schema) {
		if !slices.Contains(listed, name) && !strings.HasPrefix(name, "redirect.") &&
			!strings.HasPrefix(name, "agent.securityContext.") {
			t.Errorf("%s is in values.schema.json and not in values.yaml", name)
		}
	}
	readme := readText(t, filepath.Join(dir(), "README.md"))
	for _, name := range without {
		if !strings.Contains(readme, "`"+name+"`") {
			t.Errorf("%s is accepted without effect, and README.md does not say so", name)
		}
	}
}

// The dashboard shows every metric of the agent, and no other metric with its prefix.
func TestDashboard(t *testing.T) {
	var dashboard map[string]any
	path := filepath.Join(dir(), "files", "dashboard.json")
	read(t, path, &dashboard)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(filepath.Join(build.Root(), "agent", "metrics.go"))
	if err != nil {
		t.Fatal(err)
	}
	var shown, made []string
	for _, m := range regexp.MustCompile(`istio_pod_network_([a-z_]+)`).FindAllStringSubmatch(string(data), -1) {
		shown = append(shown, strings.TrimSuffix(m[1], "_bucket"))
	}
	for _, m := range regexp.MustCompile(`(?:counters\(|prefix \+ )"([a-z_]+)"`).FindAllStringSubmatch(string(source),
		-1) {
		made = append(made, m[1])
	}
	slices.Sort(shown)
	slices.Sort(made)
	if shown, made = slices.Compact(shown), slices.Compact(made); !slices.Equal(shown, made) || len(made) < 10 {
		t.Errorf("shown %v\nmade %v", shown, made)
	}
	if panels, _ := dashboard["panels"].([]any); len(panels) < 10 || dashboard["title"] == "" {
		t.Errorf("%d panels", len(panels))
	}
}

package chart

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/build"
)

// leaves lists the values by their full names. What is free in shape is a leaf.
func leaves(prefix string, value any) (names []string) {
	object, isObject := value.(map[string]any)
	if !isObject || len(object) == 0 ||
		slices.Contains([]string{"resources", "agent.updateStrategy", "metrics.dashboard.labels"}, prefix) {
		return []string{prefix}
	}
	for key, below := range object {
		names = append(names, leaves(strings.TrimPrefix(prefix+"."+key, "."), below)...)
	}
	return names
}

// schemaLeaves lists what the schema allows by full names.
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

// Every value is in the table of the chart's README and described in the schema, and nothing else is.
func TestValuesAreDescribed(t *testing.T) {
	var values map[string]any
	read(t, filepath.Join(dir(), "values.yaml"), &values)
	readme := readText(t, filepath.Join(dir(), "README.md"))
	var schema map[string]any
	read(t, filepath.Join(dir(), "values.schema.json"), &schema)
	for _, name := range leaves("", values) {
		if !strings.Contains(readme, "`"+name+"`") {
			t.Errorf("%s is not in README.md", name)
		}
		node := schema
		for _, key := range strings.Split(name, ".") {
			properties, _ := node["properties"].(map[string]any)
			next, described := properties[key].(map[string]any)
			if !described || next["description"] == nil {
				t.Errorf("%s is not described in values.schema.json", name)
				break
			}
			node = next
		}
	}
	listed := append(leaves("", values), "global", "redirect")
	for _, name := range schemaLeaves("", schema) {
		if !slices.Contains(listed, name) && !strings.HasPrefix(name, "redirect.") &&
			!strings.HasPrefix(name, "agent.securityContext.") {
			t.Errorf("%s is in values.schema.json and not in values.yaml", name)
		}
	}
	_, table, _ := strings.Cut(readme, "## Values")
	for _, row := range regexp.MustCompile("(?m)^[|] (`[^|]+`) [|]").FindAllStringSubmatch(table, -1) {
		for _, name := range strings.Split(row[1], ", ") {
			if !slices.Contains(listed, strings.Trim(name, "`")) {
				t.Errorf("%s is in README.md and not in values.yaml", name)
			}
		}
	}
}

// The dashboard shows every metric of the agent, and no other of its prefix.
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

package chartdocs

import (
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/istio-pod-network/controller/conformance/internal/build"
)

var categories = []string{"ai-machine-learning", "database", "integration-delivery", "monitoring-logging", "networking",
	"security", "storage", "streaming-messaging", "skip-prediction"}

// hub has the annotations of a chart that Artifact Hub reads, and checks the format of each: "Supported annotations" in
// https://artifacthub.io/docs/topics/annotations/helm/. Artifact Hub silently ignores a value in another format.
var hub = map[string]func(value string) bool{
	"alternativeName":         anyText,
	"category":                oneOf(categories...),
	"changes":                 list[change],
	"containsSecurityUpdates": oneOf("true", "false"),
	"images":                  list[image],
	"license":                 regexp.MustCompile(`^[A-Za-z0-9.+-]+$`).MatchString, // an SPDX identifier
	"links":                   list[link],
	"maintainers":             list[maintainer],
	"operator":                oneOf("true", "false"),
	"prerelease":              oneOf("true", "false"),
	"recommendations":         list[recommendation],
	"signKey":                 anyText,
}

func anyText(text string) bool { return text != "" }

func oneOf(values ...string) func(string) bool {
	return func(text string) bool { return slices.Contains(values, text) }
}

// checked is an item of a list.
type checked interface{ ok() bool }

// list reports whether a text is a YAML list of valid items without unknown keys.
func list[T checked](text string) bool {
	var items []T
	decoder := yaml.NewDecoder(strings.NewReader(text))
	decoder.KnownFields(true)
	return decoder.Decode(&items) == nil && len(items) > 0 &&
		!slices.ContainsFunc(items, func(item T) bool { return !item.ok() })
}

func isURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != ""
}

type link struct{ Name, URL string }

func (l link) ok() bool { return l.Name != "" && isURL(l.URL) }

type recommendation struct{ URL string }

func (r recommendation) ok() bool {
	return isURL(r.URL) && strings.HasPrefix(r.URL, "https://artifacthub.io/packages/")
}

type maintainer struct{ Name, Email string }

func (m maintainer) ok() bool { return m.Name != "" && strings.Contains(m.Email, "@") }

type image struct {
	Name, Image string
	Whitelisted bool
	Platforms   []string
}

func (i image) ok() bool {
	return i.Name != "" && strings.Contains(i.Image, ":") && !slices.ContainsFunc(i.Platforms, func(p string) bool {
		return strings.Count(p, "/") == 0
	})
}

type change struct {
	Kind, Description string
	Links             []link
}

func (c change) ok() bool {
	return oneOf("added", "changed", "deprecated", "removed", "fixed", "security")(c.Kind) && c.Description != "" &&
		!slices.ContainsFunc(c.Links, func(l link) bool { return !l.ok() })
}

// The chart's annotations have the format that Artifact Hub reads, and describe this release.
func TestArtifactHub(t *testing.T) {
	_, text := file(t, "Chart.yaml")
	var chart struct {
		AppVersion  string `yaml:"appVersion"`
		Icon, Home  string
		Annotations map[string]string
	}
	if err := yaml.Unmarshal([]byte(text), &chart); err != nil {
		t.Fatal(err)
	}
	for name, value := range chart.Annotations {
		short, ours := strings.CutPrefix(name, "artifacthub.io/")
		if ok := hub[short]; !ours || ok == nil || !ok(value) {
			t.Errorf("%s: Artifact Hub does not read %q", name, value)
		}
	}
	for _, name := range []string{"category", "changes", "images", "license", "links", "prerelease"} {
		if chart.Annotations["artifacthub.io/"+name] == "" {
			t.Errorf("artifacthub.io/%s is missing", name)
		}
	}
	for _, v := range values(t) {
		if strings.HasSuffix(v.Name, "mage.repository") {
			ref := "image: " + strings.Trim(v.Default, `"`) + ":" + chart.AppVersion + "\n"
			if !strings.Contains(chart.Annotations["artifacthub.io/images"], ref) {
				t.Errorf("artifacthub.io/images does not have %s", ref)
			}
		}
	}
	_, path, found := strings.Cut(chart.Icon, "/controller/main/")
	if _, err := os.Stat(filepath.Join(build.Root(), path)); !found || err != nil {
		t.Errorf("icon %s: %v", chart.Icon, err)
	}
}

// The checks above reject invalid values.
func TestArtifactHubRefuses(t *testing.T) {
	for name, bad := range map[string][]string{
		"category":        {"network", ""},
		"changes":         {"- kind: new\n  description: x", "- description: x", "x", "- kind: added\n  text: x"},
		"images":          {"- image: a:1", "- name: a\n  image: a", "- name: a\n  image: a:1\n  platforms: [amd64]"},
		"license":         {"Apache 2.0"},
		"links":           {"- name: x\n  url: github.com/x", "- url: https://x.example"},
		"prerelease":      {"no"},
		"recommendations": {"- url: https://example.com"},
		"maintainers":     {"- name: x"},
	} {
		for _, value := range bad {
			if hub[name](value) {
				t.Errorf("%s: taken: %q", name, value)
			}
		}
	}
}

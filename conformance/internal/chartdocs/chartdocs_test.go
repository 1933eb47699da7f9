package chartdocs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/internal/golden"
)

func file(t *testing.T, name string) (path, text string) {
	t.Helper()
	path = filepath.Join(build.Root(), "chart", "istio-pod-network-controller", name)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, string(data)
}

func values(t *testing.T) []Value {
	t.Helper()
	_, text := file(t, "values.yaml")
	list, err := Read([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// The README's table and the schema's descriptions match the comments in values.yaml. `make chart-docs` updates them.
func TestChartDocs(t *testing.T) {
	path, text := file(t, "README.md")
	text, err := README(text, values(t))
	if err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, path, text)
	path, text = file(t, "values.schema.json")
	schema, err := Schema([]byte(text), values(t))
	if err != nil {
		t.Fatal(err)
	}
	golden.Compare(t, path, string(schema))
}

func TestRead(t *testing.T) {
	text := "# A file.\n\n# An a:\n# of two lines.\na: \"\"\n# Some.\nb:\n  # `c|d` (docs/x.md#y).\n  c: [1]\n"
	list, err := Read([]byte(text))
	want := "| value | default | what it is |\n|---|---|---|\n| `a` | | An a: of two lines. |\n" +
		"| `b.c` | `[1]` | `c\\|d` ([docs/x.md](" + Tree + "docs/x.md#y)). |\n"
	if got := Table(list); err != nil || got != want {
		t.Errorf("%v\n%s", err, got)
	}
	if _, err := Read([]byte("# A.\na: 1\nb: 2\n")); err == nil || !strings.Contains(err.Error(), "b has no comment") {
		t.Errorf("%v", err)
	}
}

func TestSchema(t *testing.T) {
	text := "{\"description\": \"x\",\n \"properties\": {\"a\": {\"type\": [\"string\"], \"description\":  \"old\"},\n" +
		"  \"b\": {\"description\": \"B\", \"properties\": {\"description\": {\"description\": \"D\"}}}}}\n"
	list := []Value{{Name: "a", Comment: "`<new>`."}, {Name: "b", Comment: "Bee."},
		{Name: "b.description", Comment: "Dee."}}
	want := strings.NewReplacer(`"old"`, `"<new>"`, `"B"`, `"Bee"`, `"D"`, `"Dee"`).Replace(text)
	if got, err := Schema([]byte(text), list); err != nil || string(got) != want {
		t.Errorf("%v\n%s", err, got)
	}
	if _, err := Schema([]byte(text), []Value{{Name: "z", Comment: "Z."}}); err == nil {
		t.Error("z is nowhere")
	}
}

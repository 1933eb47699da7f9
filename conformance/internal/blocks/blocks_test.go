package blocks

import (
	"slices"
	"strings"
	"testing"
)

// A page may not leave out what can be checked here, and what it says of a block is understood.
func TestBlocks(t *testing.T) {
	const page = "text\n<!-- stand-ins for docker, aws: no cloud -->\n```console\n# docker push x\n$ for n in a b; do\n" +
		"    kubectl get $n\n  done\nnamespace/a\n$ helm test a \\\n  -n b\n```\n" +
		"<!-- not run: it would -->\n```sh\nmake demo\n```\n" +
		"```yaml\n# make: none\n```\n<!-- no reason -->\n```sh\nsudo make test\n```\n"
	blocks, wrong := Of("p.md", page)
	if len(blocks) != 3 || len(wrong) != 1 || !strings.HasPrefix(wrong[0], "p.md:20: ") {
		t.Fatalf("%+v %q", blocks, wrong)
	}
	session := "docker push x\nfor n in a b; do\n    kubectl get $n\n  done\nhelm test a \\\n  -n b\n"
	if b := blocks[0]; b.Text != session || b.NotRun != "" || !slices.Equal(b.StandIns, []string{"docker", "aws"}) {
		t.Errorf("%+v", b)
	}
	for i, want := range [][]string{{"docker", "kubectl", "helm"}, {"make"}, {"make"}} {
		file, err := Parse("", blocks[i].Text)
		if err != nil {
			t.Fatal(err)
		}
		names := Programs(file)
		if !slices.Equal(names, want) {
			t.Errorf("%q: %q", blocks[i].Text, names)
		}
		if left := Skipped(blocks[i], names); (len(left) > 0) != (i == 1) {
			t.Errorf("%q: left out %q", blocks[i].Text, left)
		}
	}
}

package blocks

import (
	"slices"
	"strings"
	"testing"
)

// A page may not leave out what the tests can check, and its comments about a block are understood.
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

// No block is skipped because of its format, and it is known whether a cluster test pastes it.
func TestEveryBlockIsSeen(t *testing.T) {
	const page = "# Title\n```bash\nmake demo\n```\n- a list\n\n    ```sh\n    make demo\n    ```\n" +
		"```\n$ kubectl get pods\n```\n```\noutput\n```\n```yaml\na: b\n```\n" +
		"## A\n```sh\nkubectl get a | sudo xargs kubectl delete\n```\n" +
		"### B\n<!-- not on the cluster: it has none -->\n```sh\nhelm test b\n```\n"
	blocks, wrong := Of("p.md", page)
	if len(wrong) != 3 || !strings.HasPrefix(wrong[0], "p.md:2: ") || !strings.HasPrefix(wrong[1], "p.md:7: ") ||
		!strings.HasPrefix(wrong[2], "p.md:10: ") {
		t.Errorf("%q", wrong)
	}
	for text, bad := range map[string]int{"$ kubectl get a \\\n  -n b\n": 1, "$ kubectl get a\na\n": 0} {
		if _, wrong := Of("p.md", "```console\n"+text+"```\n"); len(wrong) != bad {
			t.Errorf("%q: %q", text, wrong)
		}
	}
	if len(blocks) != 2 || blocks[0].Section != "A" || blocks[1].Section != "B" {
		t.Fatalf("%+v", blocks)
	}
	OnCluster["p.md"] = []string{"A", "B"}
	defer delete(OnCluster, "p.md")
	file, err := Parse("", blocks[0].Text)
	if err != nil {
		t.Fatal(err)
	}
	if calls := Calls(file); calls["kubectl"] != 2 {
		t.Errorf("%v", calls)
	}
	of := func(comment string) Block {
		blocks, _ := Of("q.md", "# Title\n\n"+comment+"\n```sh\nkubectl get pods\n```\n")
		return blocks[0]
	}
	for _, comment := range []string{"<!-- not on the cluster: a -->", "<!-- stand-ins for aws: a cloud -->",
		"<!-- run by TestA: a -->", "<!-- no block of this page on the cluster: a -->\n"} {
		if b := of(comment); Unexplained("q.md", b) || !Unexplained("q.md", of("")) {
			t.Errorf("%s: %+v", comment, b)
		}
	}
	if !PastedOnCluster("p.md", blocks[0]) || PastedOnCluster("p.md", blocks[1]) || PastedOnCluster("q.md", blocks[0]) ||
		!NeedsCluster(blocks[1]) || NeedsCluster(Block{Text: "make demo\n"}) {
		t.Errorf("%+v", blocks)
	}
}

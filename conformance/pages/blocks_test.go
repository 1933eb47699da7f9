package pages

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mvdan.cc/sh/v3/syntax"

	"github.com/istio-pod-network/controller/conformance/internal/build"
)

// block is what a page has a reader paste at once.
type block struct {
	place string // page and line
	text  string
	// notRun is why none of it can run; runBy is the test that runs it instead; standIns are the programs that cannot.
	notRun, runBy string
	standIns      []string
}

var (
	fence   = regexp.MustCompile("^```(sh|console)$")
	comment = regexp.MustCompile(`^<!-- (not run|run by (Test\w+)|stand-ins for ([^:]+)): (.+) -->$`)
)

// replaced are names that a page has for what a reader knows better, and what stands for them.
var replaced = strings.NewReplacer(
	"helm upgrade …", "helm upgrade istio-pod-network-controller ./chart/istio-pod-network-controller "+
		"-n istio-pod-network-controller",
	"./chart |", "./conformance/shop/chart |", // a reader's own
	" ...\n", "\n",
)

// blocksOf are the blocks of commands of a page, and what is wrong about them.
func blocksOf(page, text string) (blocks []block, wrong []string) {
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		match := fence.FindStringSubmatch(lines[i])
		if match == nil {
			if strings.HasPrefix(lines[i], "```") { // another kind, which is skipped as a whole
				for i++; i < len(lines) && lines[i] != "```"; i++ {
				}
			}
			continue
		}
		b := block{place: fmt.Sprintf("%s:%d", page, i+1)}
		if i > 0 {
			if said := comment.FindStringSubmatch(lines[i-1]); said != nil {
				if b.runBy = said[2]; said[1] == "not run" {
					b.notRun = said[4]
				}
				if said[3] != "" {
					b.standIns = strings.Split(said[3], ", ")
				}
			} else if strings.HasPrefix(lines[i-1], "<!--") {
				wrong = append(wrong, b.place+": what does this say of the block? "+lines[i-1])
			}
		}
		first := i + 1
		for i++; i < len(lines) && lines[i] != "```"; i++ {
		}
		b.text = replaced.Replace(commandsOf(match[1], lines[first:i]) + "\n")
		if strings.TrimSpace(b.text) != "" {
			blocks = append(blocks, b)
		}
	}
	return blocks, wrong
}

// commandsOf are the lines of a block that a reader types: in a session those behind a prompt, each until the command
// is complete.
func commandsOf(kind string, lines []string) string {
	if kind == "sh" {
		return strings.Join(lines, "\n")
	}
	var typed []string
	for i := 0; i < len(lines); i++ {
		if len(lines[i]) < 2 || lines[i][:2] != "$ " && lines[i][:2] != "# " {
			continue // what a command prints
		}
		command := lines[i][2:]
		for i+1 < len(lines) && (strings.HasSuffix(command, "\\") || !complete(command)) {
			i++
			command += "\n" + lines[i]
		}
		typed = append(typed, command)
	}
	return strings.Join(typed, "\n")
}

// complete reports whether a shell would not wait for more.
func complete(command string) bool {
	_, err := parse("", command+"\n")
	return !syntax.IsIncomplete(err)
}

func parse(place, text string) (*syntax.File, error) {
	return syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), place)
}

// programsOf are the programs that a block calls, those behind sudo, too.
func programsOf(file *syntax.File) (names []string) {
	syntax.Walk(file, func(node syntax.Node) bool {
		call, is := node.(*syntax.CallExpr)
		if !is || len(call.Args) == 0 {
			return true
		}
		name := call.Args[0].Lit()
		if name == "sudo" && len(call.Args) > 1 {
			name = call.Args[1].Lit()
		}
		if name = filepath.Base(name); !slices.Contains(names, name) {
			names = append(names, name)
		}
		return true
	})
	return names
}

// never are the programs that no reason leaves out: what is said of them here can be checked here.
var never = regexp.MustCompile(`^(kubectl|helm[34]?|make|istio-pod-network.*)$`)

// skipped are programs of a block that must not be left out, and are by what the page says.
func skipped(b block, programs []string) (names []string) {
	for _, name := range programs {
		if never.MatchString(name) && (b.notRun != "" || slices.Contains(b.standIns, name)) {
			names = append(names, name)
		}
	}
	return names
}

// pages are those that a reader has, by their path in the repository.
func pages(t *testing.T) (list []string) {
	t.Helper()
	for _, pattern := range []string{"*.md", "docs/*.md", "chart/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(build.Root(), filepath.FromSlash(pattern)))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %q, %v", pattern, found, err)
		}
		for _, path := range found {
			name, err := filepath.Rel(build.Root(), path)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, name)
		}
	}
	return list
}

// A page may not leave out what can be checked here, and what it says of a block is understood.
func TestBlocks(t *testing.T) {
	const page = "text\n<!-- stand-ins for docker, aws: no cloud -->\n```console\n# docker push x\n$ for n in a b; do\n" +
		"    kubectl get $n\n  done\nnamespace/a\n$ helm test a \\\n  -n b\n```\n" +
		"<!-- not run: it would -->\n```sh\nmake demo\n```\n" +
		"```yaml\n# make: none\n```\n<!-- no reason -->\n```sh\nsudo make test\n```\n"
	blocks, wrong := blocksOf("p.md", page)
	if len(blocks) != 3 || len(wrong) != 1 || !strings.HasPrefix(wrong[0], "p.md:20: ") {
		t.Fatalf("%+v %q", blocks, wrong)
	}
	session := "docker push x\nfor n in a b; do\n    kubectl get $n\n  done\nhelm test a \\\n  -n b\n"
	if b := blocks[0]; b.text != session || b.notRun != "" || !slices.Equal(b.standIns, []string{"docker", "aws"}) {
		t.Errorf("%+v", b)
	}
	for i, want := range [][]string{{"docker", "kubectl", "helm"}, {"make"}, {"make"}} {
		file, err := parse("", blocks[i].text)
		if err != nil {
			t.Fatal(err)
		}
		names := programsOf(file)
		if !slices.Equal(names, want) {
			t.Errorf("%q: %q", blocks[i].text, names)
		}
		if left := skipped(blocks[i], names); (len(left) > 0) != (i == 1) {
			t.Errorf("%q: left out %q", blocks[i].text, left)
		}
	}
}

// Package blocks reads the command blocks of a documentation page, as a reader pastes them.
package blocks

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"

	"github.com/istio-pod-network/controller/conformance/internal/build"
)

// Block is a block of commands that a reader pastes at once.
type Block struct {
	Place   string // page and line
	Section string // the heading above it
	Text    string
	// NotRun is why the block cannot run. RunBy is the test that runs it instead. StandIns are the programs in it that
	// tests replace.
	NotRun, RunBy string
	StandIns      []string
	NotOnCluster  string // why no end-to-end test pastes this block, or its page
}

var (
	fence   = regexp.MustCompile("^```(sh|console)$")
	section = regexp.MustCompile(`^#{1,4} (.+)$`)
	others  = regexp.MustCompile("^```(html|json|yaml)?$")
	comment = regexp.MustCompile(`^<!-- (not run|not on the cluster|run by (Test\w+)|stand-ins for ([^:]+)): (.+) -->$`)
	whole   = regexp.MustCompile(`(?m)^<!-- no block of this page on the cluster: (.+) -->$`)
	failing = regexp.MustCompile(`(?m)^(.*\S) +# fails\b.*$`)
)

// replaced maps placeholders of the pages to what tests use.
var replaced = strings.NewReplacer(
	"./chart |", "./conformance/shop/chart |", // the reader's own chart
	" ...\n", "\n",
)

// Read returns the blocks of a page, and what is wrong with them. The page is a path in the repository, with slashes.
func Read(page string) (blocks []Block, wrong []string, err error) {
	text, err := os.ReadFile(filepath.Join(build.Root(), filepath.FromSlash(page)))
	if err != nil {
		return nil, nil, err
	}
	blocks, wrong = Of(page, string(text))
	return blocks, wrong, nil
}

// Of returns the command blocks in the text of a page, and what is wrong with them. page names the page in messages.
func Of(page, text string) (blocks []Block, wrong []string) {
	lines, below, reason := strings.Split(text, "\n"), "", ""
	if said := whole.FindStringSubmatch(text); said != nil {
		reason = said[1]
	}
	for i := 0; i < len(lines); i++ {
		if heading := section.FindStringSubmatch(lines[i]); heading != nil {
			below = heading[1]
		}
		match := fence.FindStringSubmatch(lines[i])
		if match == nil {
			if strings.HasPrefix(strings.TrimSpace(lines[i]), "```") { // another kind of block, which is skipped
				place := fmt.Sprintf("%s:%d", page, i+1)
				if !others.MatchString(lines[i]) {
					wrong = append(wrong, place+": nobody pastes a block that begins with "+lines[i])
				}
				for i++; i < len(lines) && strings.TrimSpace(lines[i]) != "```"; i++ {
					if strings.HasPrefix(lines[i], "$ ") {
						wrong = append(wrong, place+": a session that is called none: "+lines[i])
					}
				}
			}
			continue
		}
		b := Block{Place: fmt.Sprintf("%s:%d", page, i+1), Section: below, NotOnCluster: reason}
		if i > 0 {
			if said := comment.FindStringSubmatch(lines[i-1]); said != nil {
				b.RunBy = said[2]
				switch said[1] {
				case "not run":
					b.NotRun = said[4]
				case "not on the cluster":
					b.NotOnCluster = said[4]
				}
				if said[3] != "" {
					b.StandIns = strings.Split(said[3], ", ")
				}
			} else if strings.HasPrefix(lines[i-1], "<!--") {
				wrong = append(wrong, b.Place+": what does this say of the block? "+lines[i-1])
			}
		}
		first := i + 1
		for i++; i < len(lines) && lines[i] != "```"; i++ {
		}
		typed, printed := commandsOf(match[1], lines[first:i])
		b.Text = replaced.Replace(typed + "\n")
		if match[1] == "console" && !printed {
			wrong = append(wrong, b.Place+": a session without output: as a block of sh, without prompts, it can be pasted")
		}
		if strings.TrimSpace(b.Text) != "" {
			blocks = append(blocks, b)
		}
	}
	return blocks, wrong
}

// commandsOf returns the commands of a block. In a console session they are the lines after a prompt, each until the
// command is complete. All other lines are output.
func commandsOf(kind string, lines []string) (commands string, printed bool) {
	if kind == "sh" {
		return strings.Join(lines, "\n"), false
	}
	var typed []string
	for i := 0; i < len(lines); i++ {
		if len(lines[i]) < 2 || lines[i][:2] != "$ " && lines[i][:2] != "# " {
			printed = true
			continue
		}
		command := lines[i][2:]
		for i+1 < len(lines) && (strings.HasSuffix(command, "\\") || !complete(command)) {
			i++
			command += "\n" + lines[i]
		}
		typed = append(typed, command)
	}
	return strings.Join(typed, "\n"), printed
}

// complete reports whether a shell would run the command without waiting for more lines.
func complete(command string) bool {
	_, err := Parse("", command+"\n")
	return !syntax.IsIncomplete(err)
}

// Parse parses a text as bash does. place names it in errors.
func Parse(place, text string) (*syntax.File, error) {
	return syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), place)
}

// Calls returns how often a script calls each program, including programs called by sudo and similar.
func Calls(file *syntax.File) map[string]int {
	count := map[string]int{}
	for _, name := range called(file) {
		count[name]++
	}
	return count
}

// Programs returns the programs that a script calls, each once.
func Programs(file *syntax.File) (names []string) {
	for _, name := range called(file) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// callers are programs that call the program in their arguments.
var callers = []string{"sudo", "exec", "nohup", "xargs", "watch"}

func called(file *syntax.File) (names []string) {
	syntax.Walk(file, func(node syntax.Node) bool {
		call, is := node.(*syntax.CallExpr)
		if !is || len(call.Args) == 0 {
			return true
		}
		for i, arg := range call.Args {
			if name := arg.Lit(); i+1 == len(call.Args) || !slices.Contains(callers, name) {
				names = append(names, filepath.Base(name))
				break
			}
		}
		return true
	})
	return names
}

// never matches the programs that no page may leave out, because the tests can check them.
var never = regexp.MustCompile(`^(kubectl|helm[34]?|make|istio-pod-network.*|[a-z0-9-]+\.sh)$`)

// asksCluster matches the programs that talk to a cluster.
var asksCluster = regexp.MustCompile(`^(kubectl|oc|helm[34]?|istio-pod-networkctl)$`)

// Skipped returns the programs of a block that must not be left out, but that the page leaves out.
func Skipped(b Block, programs []string) (names []string) {
	for _, name := range programs {
		if never.MatchString(name) && (b.NotRun != "" || slices.Contains(b.StandIns, name)) {
			names = append(names, name)
		}
	}
	return names
}

// Script returns a block as a script that ends at the first command that fails. A command that the page marks with `#
// fails` must fail.
func Script(b Block) string {
	return "set -euo pipefail\n" + failing.ReplaceAllString(b.Text, "if $1; then echo 'it succeeds'; exit 1; fi")
}

package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	block  = regexp.MustCompile("(?s)```(sh|console)\n(.*?)\n```")
	prompt = regexp.MustCompile(`^[$#] `)
	env    = regexp.MustCompile(`^(?:[A-Za-z_]+=\S* )+`)
)

// commands are those of a page's blocks, each in one line, as a reader pastes them.
func commands(page string) (list []string) {
	for _, match := range block.FindAllStringSubmatch(page, -1) {
		text := strings.ReplaceAll(match[2], "\\\n", " ")
		for line := range strings.Lines(text) {
			line = strings.TrimSpace(line)
			if match[1] == "console" {
				if !prompt.MatchString(line) {
					continue // what a command prints
				}
				line = line[2:]
			}
			line, _, _ = strings.Cut(line, " #")
			line = strings.TrimPrefix(env.ReplaceAllString(strings.TrimSpace(line), ""), "sudo ")
			if line != "" && !strings.HasPrefix(line, "#") {
				list = append(list, line)
			}
		}
	}
	return list
}

// What a block of commands has of this repository is there: targets of make, scripts, programs, files of values, and
// the chart.
func TestCommandBlocks(t *testing.T) {
	makefile := read(t, filepath.Join(root, "Makefile"))
	file := regexp.MustCompile(`(?:^|[ =])(\./chart/[a-z-]+|(?:\./)?(?:docs|scripts|conformance|agent)/[\w./-]+)`)
	program := regexp.MustCompile(`^bin/(istio-pod-network[\w-]*)`)
	checked := 0
	for _, page := range all(t) {
		for _, c := range commands(read(t, page)) {
			words := strings.Fields(c)
			if words[0] == "make" && len(words) > 1 {
				if checked++; !strings.Contains(makefile, "\n"+words[1]+": ## ") {
					t.Errorf("%s: there is no target: %s", page, c)
				}
			}
			if match := program.FindStringSubmatch(c); match != nil {
				checked++
				if found, _ := filepath.Glob(filepath.Join(root, "*", match[1], "main.go")); len(found) != 1 {
					t.Errorf("%s: there is no such program: %s", page, c)
				}
			}
			for _, match := range file.FindAllStringSubmatch(c, -1) {
				checked++
				if _, err := os.Stat(filepath.Join(root, match[1])); err != nil {
					t.Errorf("%s: there is no %s: %s", page, match[1], c)
				}
			}
		}
	}
	if checked < 50 {
		t.Errorf("%d things of this repository in the commands of all pages", checked)
	}
}

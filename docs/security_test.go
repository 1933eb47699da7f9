package docs

import (
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/plugin/redirect"
)

// notAnExit are names that the code reads and by which nothing goes around a sidecar, and why.
var notAnExit = map[string]string{
	"not-kubernetes":      "no pod",
	"namespace-excluded":  "the operator's setting, not the pod's",
	"not-opted-in":        "the operator's selection; the namespace is its editor's",
	"opted-in-no-proxy":   "the wait fails",
	"agent-away":          "the operator's auxFailOpen; the wait holds the pod",
	"injected":            "redirected",
	"opted-in":            "redirected",
	"annotations-unknown": "no decision yet",
	"DROP_INVALID":        "drops more",
	"INVALID_DROP":        "drops more",
	"traffic.sidecar.istio.io/includeOutboundPorts":        "redirects more",
	"pod-network-controller.istio.io/includeOutboundPorts": "redirects more",
}

// What a pod's author can say to have traffic go around the sidecar is what a supervisor may want to forbid: the list
// in security.md has every annotation and variable that is read, and every reason for which a pod is left untouched,
// but for those above.
func TestWhatASupervisorForbids(t *testing.T) {
	list := section(t, "security.md", "What an administrator should forbid")
	names := constants(t, filepath.Join(root, "plugin", "annotation"), "input.go", "")
	maps.Copy(names, constants(t, filepath.Join(root, "plugin", "redirect"), "proxy.go", "Env"))
	for _, reason := range redirect.Reasons {
		names[string(reason)] = true
	}
	for name := range names {
		listed := strings.Contains(list, "`"+name+"`") || strings.Contains(list, "`"+name+":")
		if _, harmless := notAnExit[name]; listed == harmless {
			t.Errorf("%s: in the list of security.md: %v; taken for harmless here: %v", name, listed, harmless)
		}
	}
	for name := range notAnExit {
		if !names[name] {
			t.Errorf("%s: nothing of that name is read", name)
		}
	}
}

// Every Event's reason is in security.md's list of what else says the same, and what that names is there.
func TestForgedEvents(t *testing.T) {
	list := section(t, "security.md", "Events that a stolen token can forge")
	row := regexp.MustCompile("(?m)^\\| (`.*`) \\| (.*) \\|$")
	named, word := map[string]bool{}, regexp.MustCompile("`([^`]*)`")
	for _, match := range row.FindAllStringSubmatch(list, -1) {
		for _, event := range word.FindAllStringSubmatch(match[1], -1) {
			named[event[1]] = true
		}
		for kind, known := range map[string]func(string) bool{
			"metric `([^`]*)`": func(name string) bool {
				return strings.Contains(section(t, "agent.md", "Metrics"), "`"+name+"`")
			},
			"reason `([^`]*)`": func(name string) bool { return slices.Contains(redirect.Reasons, redirect.Reason(name)) },
			"error ([0-9]+)": func(code string) bool {
				return strings.Contains(section(t, "reference.md", "Errors"), "\n| "+code+" |")
			},
		} {
			for _, is := range regexp.MustCompile(kind).FindAllStringSubmatch(match[2], -1) {
				if !known(is[1]) {
					t.Errorf("%s: nothing is known of %s", match[1], is[0])
				}
			}
		}
	}
	events := constants(t, filepath.Join(root, "agent", "patrol"), "warnings.go", "event")
	if !maps.Equal(named, events) {
		t.Errorf("security.md lists %q; there are %q", slices.Sorted(maps.Keys(named)), slices.Sorted(maps.Keys(events)))
	}
}

// mayDo is what security.md says of each right of the agent's account.
var mayDo = map[string]string{
	"pods get, list, watch":         "read pods",
	"pods/status patch":             "change the marks of pods on that node",
	"namespaces get, list, watch":   "and namespaces of the cluster",
	"nodes get":                     "a node by name",
	"events create, patch":          "write Events",
	"nodes get, list, watch, patch": "with `startupTaint`, read all nodes, and take that taint off that node",
	"pods delete":                   "with `repair: delete`, delete pods of that node",
}

// What the agent's account may do is in security.md, as what a thief of its token may.
func TestWhatAThiefMayDo(t *testing.T) {
	list := section(t, "security.md", "What each party can do")
	rule := regexp.MustCompile(`resources: \[(.*)\]\n +verbs: \[(.*)\]`)
	templates, err := filepath.Glob(filepath.Join(root, "chart", "*", "templates", "rbac.yaml"))
	if err != nil || len(templates) != 1 {
		t.Fatalf("%q, %v", templates, err)
	}
	found := map[string]bool{}
	for _, file := range append(templates, filepath.Join(root, "agent", "rbac.yaml")) {
		for _, match := range rule.FindAllStringSubmatch(read(t, file), -1) {
			right := match[1] + " " + match[2]
			found[right] = true
			if words := mayDo[right]; words == "" || !strings.Contains(list, words) {
				t.Errorf("security.md does not say of a thief: %s (%q)", right, words)
			}
		}
	}
	for right := range mayDo {
		if !found[right] {
			t.Errorf("the agent has no right %q", right)
		}
	}
}

// Every line of security.md's tables about who can do what, and what fails, names what shows it.
func TestEveryClaimIsShown(t *testing.T) {
	for heading, open := range map[string]string{
		"What each party can do": "root on a node", "What happens when something fails": "",
	} {
		rows, shown := 0, regexp.MustCompile("`(Test\\w+|make \\w+)`")
		for line := range strings.Lines(section(t, "security.md", heading)) {
			cells := strings.Split(strings.Trim(line, "| \n"), " | ")
			if !strings.HasPrefix(line, "| ") || strings.HasSuffix(cells[len(cells)-1], "shown by") || cells[0] == open {
				continue
			}
			rows++
			if !shown.MatchString(cells[len(cells)-1]) {
				t.Errorf("no test shows: %s", line)
			}
		}
		if rows < 5 {
			t.Errorf("%s: %d rows", heading, rows)
		}
	}
}

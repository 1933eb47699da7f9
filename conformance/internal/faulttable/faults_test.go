package faulttable

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/build"
)

// The pages have the same tables as the tests.
func TestPages(t *testing.T) {
	for name, table := range map[string]string{"faults.md": Page(), "alerts.md": AlertsPage()} {
		page, err := os.ReadFile(filepath.Join(build.Root(), "docs", name))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(page)+"\n", "\n"+table+"\n") {
			t.Errorf("docs/%s lacks this table:\n%s", name, table)
		}
	}
}

// Names are unique, and findings belong to commands that are compared.
func TestTable(t *testing.T) {
	var names []string
	for _, f := range Table {
		if slices.Contains(names, f.Name) {
			t.Errorf("%s is there twice", f.Name)
		}
		names = append(names, f.Name)
		for _, s := range f.Shows {
			its := f.Of(s.Command)
			if unasked := f.Unasked(s.Command); unasked != nil && s.Exit == notAsked {
				its = unasked
			}
			if !slices.Contains(f.By.Commands(), s.Command) || its.What != s.What || s.What == "" || s.Next == "" {
				t.Errorf("%s: %+v", f.Name, s)
			}
		}
		if len(f.Alerts) > 0 && f.By != EndToEnd {
			t.Errorf("%s: nobody looks at the alerts", f.Name)
		}
	}
	if len(names) < 12 {
		t.Errorf("%d faults", len(names))
	}
}

// A command must say what the table has, about the right node or pod and with the right status, and no more.
func TestJudge(t *testing.T) {
	f := Fault{Name: "f", Shows: []Finding{{"status", 1, "no entry", "see the log"}, {"check", 0, "another mesh", "part"},
		{"trace", 3, "another mesh", "part"},
		{"explain", 1, "refused", "correct"}, {"explain", 3, "could not be asked", "see why"}}}
	refused := Found{"a", "it is refused", "correct it"}
	unasked := []Found{{"b", "it could not be asked", "see why not"}}
	wrong := func(about string) Said { return Said{Wrong: []Found{{about, "there is no entry", "see the log of x"}}} }
	warning := Said{Warnings: []Found{{"a", "another mesh is there", "part them"}}}
	old := func(about string) Said { return Said{Warnings: []Found{{about, "it is old", ""}}} }
	elsewhere := Said{Warnings: []Found{warning.Warnings[0], {"b", "another mesh is there", "part them"}}}
	for name, c := range map[string]struct {
		command string
		status  int
		said    Said
		holds   bool
	}{
		"found":                       {"status", 1, wrong("a"), true},
		"another status":              {"status", 3, wrong("a"), false},
		"not found":                   {"status", 1, Said{}, false},
		"found of another":            {"status", 1, wrong("b"), false},
		"found of another, too":       {"status", 1, Said{Wrong: append(wrong("a").Wrong, wrong("b").Wrong...)}, false},
		"a warning":                   {"check", 0, warning, true},
		"no warning":                  {"check", 0, Said{}, false},
		"a warning that another has":  {"status", 1, Said{wrong("a").Wrong, warning.Warnings, nil}, true},
		"a warning of another":        {"check", 0, elsewhere, false},
		"a warning that nobody has":   {"version", 0, old("a"), false},
		"a warning of the cluster":    {"version", 0, old(""), true},
		"a warning, and not well":     {"check", 1, Said{wrong("a").Wrong, warning.Warnings, nil}, false},
		"not asked":                   {"trace", 3, warning, true},
		"not asked, and nothing said": {"trace", 3, Said{}, false},
		"another not asked":           {"explain", 1, Said{Wrong: []Found{refused}, Unasked: unasked}, true},
		"another asked":               {"explain", 1, Said{Wrong: []Found{refused}}, false},
		"another not asked otherwise": {"explain", 1, Said{Wrong: []Found{refused}, Unasked: wrong("b").Wrong}, false},
		"not asked where it could be": {"trace", 0, Said{Unasked: unasked}, false},
		"not looked at":               {"version", 0, Said{}, true},
		"not looked at, and not well": {"version", 1, wrong("a"), false},
	} {
		if err := f.Judge(c.command, c.status, c.said, "a"); (err == nil) != c.holds {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Read understands the output of every command.
func TestRead(t *testing.T) {
	for name, c := range map[string]struct {
		command, out string
		want         Said
	}{
		"status": {"status", `{"items": [{"name": "n", "kernel": "6.1", "findings": [{"what": "w", "next": "x"}],
			"warnings": [{"what": "v"}]}]}`,
			Said{[]Found{{"n", "w", "x"}}, []Found{{"n", "v", ""}}, nil}},
		"explain": {"explain", `{"items": [{"name": "p", "error": "e", "warnings": ["v"],
			"cluster": {"state": "not well", "findings": [{"what": "w", "next": "x"}]}},
			{"name": "q", "cluster": {"state": "not asked", "findings": [{"what": "u", "next": "y"}]}}]}`,
			Said{Wrong: []Found{{"p", "w", "x"}}, Unasked: []Found{{"q", "u", "y"}}}},
		"trace": {"trace", `{"items": [{"name": "p", "error": "e", "next": "x"}, {"name": "q", "next": "if it is meant"}]}`,
			Said{Wrong: []Found{{"p", "e", "x"}}}},
		"trace --live": {"trace --live", `{"items": [{"name": "p", "kernel": {"looked": true, "detail": "d", "next": "x"}},
			{"name": "q", "kernel": {"looked": true, "agrees": true}},
			{"name": "r", "kernel": {"detail": "nobody", "next": "y"}}]}`,
			Said{[]Found{{"p", "d", "x"}}, []Found{{"r", "nobody", "y"}}, nil}},
		"sysdump": {"sysdump", `{"unread": [{"what": "agent of node n", "reason": "r", "next": "x"},
			{"what": "pod s/p", "reason": "q", "next": "y"}, {"what": "events", "reason": "o", "next": "z"}]}`,
			Said{Wrong: []Found{{"n", "agent of node n: r", "x"}, {"p", "pod s/p: q", "y"}, {"", "events: o", "z"}}}},
		"verify": {Verify, `{"items": [{"name": "n", "verdict": "not well", "findings": [{"what": "w", "next": "x"}],
			"flows": [{"flow": "f", "verdict": "well"}]}, {"name": "o", "verdict": "well"}]}`,
			Said{Wrong: []Found{{"n", "w", "x"}}}},
		"check": {"check", `{"items": [{"node": "n", "verdict": "not well", "what": "w", "next": "x"},
			{"verdict": "warning", "what": "v", "next": "y"}, {"verdict": "well", "what": "u"}]}`,
			Said{[]Found{{"n", "w", "x"}}, []Found{{"", "v", "y"}}, nil}},
	} {
		got, err := Read(c.command, []byte(c.out))
		if err != nil || !slices.Equal(got.Wrong, c.want.Wrong) || !slices.Equal(got.Warnings, c.want.Warnings) ||
			!slices.Equal(got.Unasked, c.want.Unasked) {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
	if _, err := Read("status", []byte("no JSON")); err == nil {
		t.Error("no JSON is read")
	}
}

package check

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/internal/golden"
)

// Output about clusters with a fault, with the exit status.
func TestCheck(t *testing.T) {
	for name, s := range scenarios {
		t.Run(name, func(t *testing.T) {
			l := well()
			if s.before {
				l = empty()
			}
			s.make(l)
			for format, file := range map[output.Format]string{output.Table: name + ".txt", output.JSON: name + ".json",
				output.YAML: name + ".yaml"} {
				whole := name == "well" || name == "pre" || name == "fewer-rights"
				if format != output.Table && !whole {
					continue
				}
				var out bytes.Buffer
				err := options{before: s.before}.run(t.Context(), l.source(), output.Writer{Out: &out, Format: format}, "v1.4.0")
				if got := outcome.StatusOf(err); got != s.status {
					t.Errorf("%s: status %d, want %d: %v\n%s", format, got, s.status, err, out.String())
				}
				golden.Compare(t, filepath.Join("testdata", file), out.String())
				if format == output.Table {
					golden.Fits(t, file, out.String(), output.Width)
				}
			}
			c, err := Of(t.Context(), l.source(), "", s.before, "v1.4.0")
			if err != nil {
				t.Fatal(err)
			}
			said := s.check == ""
			for _, item := range c.Items {
				said = said || item.Check == s.check && item.Verdict == s.as && strings.Contains(item.What, s.what) &&
					strings.Contains(item.Next, s.next)
				if s.check == "" && item.Verdict != Well {
					t.Errorf("%+v", item)
				}
				if needs := item.Verdict == Warning || item.Verdict == NotWell; needs != (item.Next != "") {
					t.Errorf("each ! and ✗ has its remedy, and nothing else: %+v", item)
				}
				if item.MissingRight != "" && item.Verdict != NotLookedAt {
					t.Errorf("%+v", item)
				}
			}
			if !said {
				t.Errorf("nothing says %q and %q: %+v", s.what, s.next, c.Items)
			}
		})
	}
}

// Each check is well in one scenario, and not in another.
func TestEachCheck(t *testing.T) {
	seen := map[string]map[bool]bool{}
	for _, s := range scenarios {
		l := well()
		if s.before {
			l = empty()
		}
		s.make(l)
		c, err := Of(t.Context(), l.source(), "", s.before, "v1.4.0")
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range c.Items {
			if seen[item.Check] == nil {
				seen[item.Check] = map[bool]bool{}
			}
			seen[item.Check][item.Verdict == Well] = true
		}
	}
	// Checks that appear only if something is unusual, and those that replace others that cannot be made.
	only := map[string]bool{"pods-outside": true, "older-rules": true, "installation": true, "multus-api": true,
		"openshift-api": true, "agents": true, "rules": true}
	for check, verdicts := range seen {
		if !verdicts[false] || !verdicts[true] && !only[check] {
			t.Errorf("%s: %v", check, verdicts)
		}
	}
	if len(seen) < 15 {
		t.Errorf("%d checks", len(seen))
	}
}

// If the API server does not answer, nothing is written.
func TestUnasked(t *testing.T) {
	l := well()
	l.broken = true
	var out bytes.Buffer
	err := options{}.run(t.Context(), l.source(), output.Writer{Out: &out}, "v1.4.0")
	if outcome.StatusOf(err) != outcome.NotAsked || out.Len() > 0 || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("%v, %q", err, out.String())
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	err = options{}.run(ended, well().source(), output.Writer{Out: &out}, "")
	if outcome.StatusOf(err) != outcome.NotAsked {
		t.Error(err)
	}
	c := Check{Items: []Item{{Verdict: Well}}}
	c.unlooked("istiod", "Istio's injectors", "", errors.New("500"))
	for verdict, want := range map[Verdict]int{Well: outcome.NotAsked, NotWell: outcome.NotWell} {
		c.Items[0].Verdict = verdict
		c.count()
		if err := c.show(output.Writer{Out: &out}); outcome.StatusOf(err) != want {
			t.Errorf("an error beside what is %s: %v", verdict, err)
		}
	}
	if err := (Check{Summary: Summary{NotLookedAt: 3}}).show(output.Writer{Out: &out}); !errors.Is(err, errNothing) {
		t.Error(err)
	}
}

// -n sets the agents' namespace.
func TestNamespace(t *testing.T) {
	if c, err := Of(t.Context(), well().source(), "elsewhere", false, "v1.4.0"); err != nil || c.Summary.NotWell != 1 {
		t.Errorf("%+v, %v", c, err)
	}
}

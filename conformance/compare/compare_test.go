package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/conformance/internal/markers"
)

// numbers matches cells with measured numbers.
var numbers = regexp.MustCompile(`^(–|([0-9]+: )?[0-9.]+( / [0-9.]+)*(, [0-9]+ pods not ready)?)$`)

// shape returns the table with fixed words for its numbers and for the line that counts measurements.
func shape(t *testing.T, block string) (lines []string) {
	t.Helper()
	for line := range strings.Lines(block) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		for i := range cells {
			cell := strings.Trim(cells[i], " |")
			if numbers.MatchString(cell) {
				cell = "NUMBER"
			}
			cells[i] = cell
		}
		line = strings.Join(cells, " | ")
		if strings.HasPrefix(line, "Measured of each") {
			line = "Measured of each"
		}
		lines = append(lines, line)
	}
	return lines
}

// The page has the tables of the present program: the same columns, rows, and cells without numbers.
func TestPageHasTheTables(t *testing.T) {
	page, err := os.ReadFile(docsPage())
	if err != nil {
		t.Fatal(err)
	}
	block, err := markers.Section(string(page), docsCommand)
	if err != nil {
		t.Fatal(err)
	}
	there := shape(t, block)
	for name, all := range map[string][]measurement{"nothing": nil, "something": some} {
		if want := shape(t, markdown(all)); !slices.Equal(there, want) {
			t.Errorf("with %s measured, the page has\n%s\nmake compare writes\n%s", name, strings.Join(there, "\n"),
				strings.Join(want, "\n"))
		}
	}
	again, err := markers.Insert(string(page), docsCommand, block)
	if err != nil || again != string(page) {
		t.Errorf("writing the same again changes the page, or %v", err)
	}
	if _, err := markers.Insert("a page", docsCommand, block); err == nil {
		t.Error("a page without markers is no error")
	}
}

// some has measurements of one way and of the one without redirection.
var some = []measurement{
	{Round: 1, Way: "none", Part: partSingle, Number: 1, Count: 1, usage: usage{Runtime: 0.1}},
	{Round: 1, Way: "wait", Part: partSingle, Number: 1, Count: 1, outcome: outcome{Ready: 3, Request: 4},
		usage: usage{Runtime: 0.12, Agent: 0.004, Memory: 30, Requests: 2}},
	{Round: 1, Way: "wait", Part: partSingle, Number: 2, Count: 1, outcome: outcome{Ready: 1, Request: 5},
		usage: usage{Runtime: 0.14, Pods: 0.9, Memory: 31, Requests: 1}},
	{Round: 2, Way: "wait", Part: partSingle, Number: 1, Count: 1, outcome: outcome{Ready: 2, Request: 3},
		usage: usage{Runtime: 0.1, Agent: 0.002, Memory: 29, Requests: 3}},
	{Round: 1, Way: "wait", Part: "killed", Number: 1, Count: 10, outcome: outcome{Ready: 33.4, Leaked: 1, Stuck: 2}},
}

// The cells have the measured values in the form for readers.
func TestCells(t *testing.T) {
	cells := map[string]string{}
	for _, g := range tables(some) {
		for _, row := range g.rows {
			for i, cell := range row {
				cells[row[0]+": "+g.head[i]] = cell
			}
		}
	}
	for name, want := range map[string]string{
		"this project, init wait: one pod: ready, s":                                                        "2.00 / 3.00",
		"this project, init wait: one pod: first request, s":                                                "4.00 / 5.00",
		"this project, init wait: 110 at once: all ready, s":                                                unknown,
		"this project, init wait: processor time per pod of CNI plugins and runc, beyond the first row, ms": "20.0",
		"this project, init wait: of the pod's containers until ready, ms":                                  "298.0",
		"this project, init wait: of the agent per pod, ms":                                                 "2.0",
		"this project, init wait: agent's memory, MiB":                                                      "31",
		"this project, init wait: API requests per pod":                                                     "2.0",
		"this project, init wait: agent killed while pods start":                                            "10: 1 / 2 / 33",
		"this project, init wait: API server away for 30 s":                                                 unknown,

		// on a line of its own, because it is long
		"no redirection, same containers: processor time per pod of CNI plugins and runc, beyond the first row, ms": "0.0",

		"`istio-init`: agent killed while pods start":                          never,
		"no redirection, same containers: API server away for 30 s":            "nothing to lose",
		"Istio CNI, `istio-validation`: credential on the node's disk":         "`/run/istio-cni/istio-cni-kubeconfig`",
		"Istio CNI, `istio-validation`: init containers":                       "`istio-validation`",
		"this project, startup taint, no init container: init containers":      "none",
		"this project, startup taint, no init container: API requests per pod": unknown,
	} {
		if cells[name] != want {
			t.Errorf("%s: %q, want %q", name, cells[name], want)
		}
	}
}

// A run that ended in the middle of a line continues after the line before, with the same seed.
func TestStateGoesOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "state.jsonl")
	s, err := openState(path, 7)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range some[:2] {
		if err := s.add(m); err != nil {
			t.Fatal(err)
		}
	}
	cut, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = cut.WriteString(`{"round": 1, "way": "wa`)
		cut.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if s, err = openState(path, 8); err != nil {
		t.Fatal(err)
	}
	if s.seed != 7 || len(s.all) != 2 || !s.has(some[1]) || s.has(some[2]) {
		t.Errorf("seed %d, %+v", s.seed, s.all)
	}
	if err := s.add(some[2]); err != nil {
		t.Fatal(err)
	}
	all, err := readState(path)
	if err != nil || !slices.Equal(all, some[:3]) {
		t.Errorf("%+v %v", all, err)
	}
	if err := os.WriteFile(path, []byte("{\"seed\": 7}\nno JSON\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := openState(path, 8); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a state that cannot be read: %v", err)
	}
}

// A leaked pod, a pod that is not ready, or one without a request ends a run without a fault.
func TestServed(t *testing.T) {
	for _, o := range []outcome{{Leaked: 1}, {Stuck: 1}, {Silent: 1}} {
		if (measurement{Count: 1, outcome: o}).served() == nil {
			t.Errorf("%+v is no error", o)
		}
	}
	if err := some[1].served(); err != nil {
		t.Error(err)
	}
}

// Every round has every way once, in an order that depends on the seed and is not always the same.
func TestOrder(t *testing.T) {
	orders := map[string]bool{}
	for round := range 20 {
		got := keys(order(ways, 1, round))
		if !slices.Equal(got, keys(order(ways, 1, round))) {
			t.Errorf("round %d has two orders", round)
		}
		orders[strings.Join(got, " ")] = true
		slices.Sort(got)
		if want := slices.Sorted(slices.Values(keys(ways))); !slices.Equal(got, want) {
			t.Errorf("round %d: %q", round, got)
		}
	}
	if len(orders) < 2 {
		t.Errorf("twenty rounds have one order: %v", orders)
	}
}

// Invalid values are rejected.
func TestOptions(t *testing.T) {
	for _, args := range [][]string{{"-rounds=0"}, {"-single=0"}, {"-full=-1"}, {"-only=wait,other"}, {"more"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
	o, err := parse([]string{"-quick", "-only=wait"})
	if err != nil || o.plan != (plan{rounds: 1, single: 1}) || o.faults || o.state != "" {
		t.Errorf("%+v %v", o, err)
	}
}

// Changes to a file are found. JSON in another order, as Istio CNI writes it, is no change.
func TestDiffer(t *testing.T) {
	before := entries("a", `{"x": 1, "y": [2]}`, "b", "text")
	for want, now := range map[string][]string{
		"": {"a", `{"y": [2], "x": 1}`, "b", "text"}, "n: a": {"a", `{"x": 2, "y": [2]}`, "b", "text"},
		"n: c": {"a", `{"x": 1, "y": [2]}`, "b", "text", "c", ""}, "n: without b": {"a", `{"x": 1, "y": [2]}`},
	} {
		if got := strings.Join(differ("n", before, entries(now...)), "; "); got != want {
			t.Errorf("%q: %q, want %q", now, got, want)
		}
	}
}

// entries makes files from pairs of path and content.
func entries(pairs ...string) cluster.Files {
	files := cluster.Files{}
	for i := 0; i < len(pairs); i += 2 {
		files[pairs[i]] = cluster.Entry{Contents: pairs[i+1]}
	}
	return files
}

// A request to an overloaded API server is repeated. Another error ends the wait.
func TestUntil(t *testing.T) {
	busy, refused := apierrors.NewTimeoutError("busy", 1), errors.New("no such kind")
	for _, row := range []struct {
		name    string
		answers []error
		want    error
	}{
		{"at once", []error{nil}, nil},
		{"after two that pass", []error{busy, busy, nil}, nil},
		{"an error that stays", []error{busy, refused, nil}, refused},
	} {
		asked := 0
		err := until(t.Context(), "it answers", func() (bool, error) {
			asked++
			return true, row.answers[asked-1]
		})
		if !errors.Is(err, row.want) || row.want == nil && asked != len(row.answers) {
			t.Errorf("%s: %v after %d", row.name, err, asked)
		}
	}
}

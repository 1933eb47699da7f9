package prometheus

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/internal/await"
	"sigs.k8s.io/yaml"
)

// Rule is an alert of the chart.
type Rule struct {
	Alert string `json:"alert"`
	Expr  string `json:"expr"`
	For   string `json:"for"`
}

// Rules are those of the chart's PrometheusRule, which conformance/chart compares with the file that is read here.
func Rules(t testing.TB) (rules []Rule) {
	t.Helper()
	var alerts []struct {
		Alert, Expr, For string
		Threshold        float64
	}
	text, err := os.ReadFile(chartFile("alerts.yaml"))
	await.Must(t, err)
	await.Must(t, yaml.Unmarshal(text, &alerts))
	for _, a := range alerts {
		rules = append(rules, Rule{a.Alert, strings.ReplaceAll(a.Expr, "THRESHOLD", fmt.Sprint(a.Threshold)), a.For})
	}
	if len(rules) < 10 {
		t.Fatalf("%d alerts", len(rules))
	}
	return rules
}

// minutes are a duration of a rule: how long it has to hold, or what it looks back on.
var minutes = regexp.MustCompile(`\b([0-9]+)m\b`)

// Hastened are rules of which each minute is a second: what a test that makes a fault on a real cluster cannot wait
// for. How long each really waits, promtool tests in conformance/chart.
func Hastened(rules []Rule) []Rule {
	rules = slices.Clone(rules)
	for i := range rules {
		rules[i].Expr = minutes.ReplaceAllString(rules[i].Expr, "${1}s")
		rules[i].For = minutes.ReplaceAllString(rules[i].For, "${1}s")
	}
	return rules
}

// selector is a part of a rule that names series.
var selector = regexp.MustCompile(`\b(?:up|istio_pod_network_\w+|kube_\w+)\b(?:\{[^}]*\})?`)

// Selectors are the queries of rules that have to have a series as soon as there is something to look at, by the name
// of their rule.
func Selectors(t testing.TB, rules []Rule) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, rule := range rules {
		found := selector.FindAllString(rule.Expr, -1)
		if len(found) == 0 {
			t.Fatalf("%s names no series", rule.Alert)
		}
		for _, query := range found {
			all[rule.Alert+": "+query] = query
		}
	}
	return all
}

// Queries are those of the chart's dashboard, by panel and legend, for the nodes that match.
func Queries(t testing.TB, nodes string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(chartFile("dashboard.json"))
	await.Must(t, err)
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	await.Must(t, json.Unmarshal(text, &dashboard))
	all := map[string]string{}
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			all[panel.Title+": "+target.LegendFormat+About(nodes)] = strings.NewReplacer("$node", nodes,
				"$__rate_interval", "5s").Replace(target.Expr)
		}
	}
	if len(all) < 20 {
		t.Fatalf("%d queries", len(all))
	}
	return all
}

func chartFile(name string) string {
	return filepath.Join(build.Root(), "chart", "istio-pod-network-controller", "files", name)
}

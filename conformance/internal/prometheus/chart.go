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

// Rules returns the chart's alerts, read from its file alerts.yaml. conformance/chart compares that file with the
// rendered PrometheusRule.
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

// minutes matches a duration in minutes, in `for` or in a range selector.
var minutes = regexp.MustCompile(`\b([0-9]+)m\b`)

// Hastened returns the rules with seconds in place of minutes, because a test on a real cluster cannot wait for
// minutes. `promtool test` checks the real durations in conformance/chart.
func Hastened(rules []Rule) []Rule {
	rules = slices.Clone(rules)
	for i := range rules {
		rules[i].Expr = minutes.ReplaceAllString(rules[i].Expr, "${1}s")
		rules[i].For = minutes.ReplaceAllString(rules[i].For, "${1}s")
	}
	return rules
}

// selector matches a series selector in an expression.
var selector = regexp.MustCompile(`\b(?:up|istio_pod_network_\w+|kube_\w+)\b(?:\{[^}]*\})?`)

// Selectors returns the series selectors of the rules, by "ALERT: SELECTOR". Each must have a series as soon as there
// are agents.
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

// Queries returns the queries of the chart's dashboard, by panel and legend. The variable $node is replaced by nodes.
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

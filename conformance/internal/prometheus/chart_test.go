package prometheus

import (
	"slices"
	"testing"
)

// Minutes become seconds in `for` and in range selectors. Nothing else in a rule changes.
func TestHastened(t *testing.T) {
	rules := []Rule{
		{"a", `increase(marks_total{result="5m", m="10m0"}[5m]) > 0`, "10m"},
		{"b", "histogram_quantile(0.99, rate(x_5m_bucket[10m])) > 5", "30m"},
	}
	before := slices.Clone(rules)
	want := []Rule{
		{"a", `increase(marks_total{result="5s", m="10m0"}[5s]) > 0`, "10s"},
		{"b", "histogram_quantile(0.99, rate(x_5m_bucket[10s])) > 5", "30s"},
	}
	if got := Hastened(rules); !slices.Equal(got, want) || !slices.Equal(rules, before) {
		t.Errorf("%+v, and the rules are %+v", got, rules)
	}
	for _, rule := range Hastened(Rules(t)) {
		if minutes.MatchString(rule.Expr + rule.For) {
			t.Errorf("%+v still has minutes", rule)
		}
	}
}

// Every rule of the chart has a series selector. PromQL keywords are not selectors.
func TestSelectors(t *testing.T) {
	rules := []Rule{{"a", `up{job=~"(.+/)?x"} < 1 unless istio_pod_network_ready == 0`, "1m"},
		{"b", "absent(istio_pod_network_build_info)", "1m"}}
	got := Selectors(t, rules)
	for name, want := range map[string]string{`a: up{job=~"(.+/)?x"}`: `up{job=~"(.+/)?x"}`,
		"a: istio_pod_network_ready":      "istio_pod_network_ready",
		"b: istio_pod_network_build_info": "istio_pod_network_build_info"} {
		if got[name] != want {
			t.Errorf("%q: %q", name, got[name])
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("beside those: %v", got)
	}
	if got := Selectors(t, Rules(t)); len(got) < len(Rules(t)) {
		t.Errorf("%d selectors", len(got))
	}
	if all := Queries(t, "node-1"); len(all) < 20 {
		t.Errorf("%d queries", len(all))
	}
}

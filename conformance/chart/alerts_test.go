package chart

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"sigs.k8s.io/yaml"
)

// alert is an alert in files/alerts.yaml.
type alert struct {
	Alert, Expr, For, Severity, Summary, Description string
	Threshold                                        *float64
}

func alerts(t *testing.T) (all []alert) {
	t.Helper()
	read(t, filepath.Join(dir(), "files", "alerts.yaml"), &all)
	if len(all) < 10 {
		t.Fatalf("%d alerts", len(all))
	}
	return all
}

func (a alert) waits(t *testing.T) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(a.For)
	if err != nil {
		t.Fatalf("%s: %v", a.Alert, err)
	}
	return d
}

// rule is a rule of a PrometheusRule.
type rule struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

type ruleGroups struct {
	Groups []struct {
		Name  string
		Rules []rule
	}
}

// rules returns the rendered rules, and their text for promtool.
func rules(t *testing.T, helm string, values ...string) (all []rule, file []byte) {
	t.Helper()
	manifests := template(t, helm, append(values, "metrics.prometheusRule.enabled=true")...)
	for _, o := range objects(t, manifests) {
		if o.GetKind() != "PrometheusRule" {
			continue
		}
		text, err := yaml.Marshal(o.Object["spec"])
		var spec ruleGroups
		if err == nil {
			err = yaml.UnmarshalStrict(text, &spec)
		}
		if err != nil {
			t.Fatal(err)
		}
		return spec.Groups[0].Rules, text
	}
	t.Fatal("no PrometheusRule")
	return nil, nil
}

// promtool runs promtool in a directory.
func promtool(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("promtool", args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %q: %v\n%s", args, err, out)
	}
}

// The chart renders every alert of the file except the disabled ones, each with a link to its section of the page of
// alerts.
func TestPrometheusRule(t *testing.T) {
	page := readText(t, filepath.Join(build.Root(), "docs", "alerts.md"))
	both(t, func(t *testing.T, helm string) {
		taken(t, template(t, helm, "metrics.prometheusRule.enabled=true"))
		got, file := rules(t, helm)
		to := t.TempDir()
		if err := os.WriteFile(filepath.Join(to, "rules.yaml"), file, 0o600); err != nil {
			t.Fatal(err)
		}
		promtool(t, to, "check", "rules", "--lint=all", "--lint-fatal", "rules.yaml")
		all := alerts(t)
		if len(got) != len(all) {
			t.Fatalf("%d alerts, want %d", len(got), len(all))
		}
		for i, a := range all {
			threshold := ""
			if a.Threshold != nil {
				threshold = strconv.FormatFloat(*a.Threshold, 'g', -1, 64)
			}
			expr := strings.ReplaceAll(a.Expr, "THRESHOLD", threshold)
			if r := got[i]; r.Alert != a.Alert || r.Expr != expr || r.For != a.For || r.Labels["severity"] != a.Severity ||
				r.Annotations["summary"] != a.Summary || r.Annotations["description"] != a.Description ||
				r.Annotations["runbook_url"] != home+"#"+strings.ToLower(a.Alert) {
				t.Errorf("%+v\nis not %+v", r, a)
			}
			_, section, found := strings.Cut(page, "\n## "+a.Alert+"\n")
			section, _, _ = strings.Cut(section, "\n## ")
			if fires := fmt.Sprintf("`%s` for %s", expr, a.For); !found || !strings.Contains(section, fires) {
				t.Errorf("alerts.md does not say of %s: %s", a.Alert, fires)
			}
		}
		some, _ := rules(t, helm, "metrics.prometheusRule.disabled={"+all[0].Alert+","+all[2].Alert+"}",
			"metrics.prometheusRule.runbookURL=https://docs.example.com/alerts")
		if len(some) != len(all)-2 || some[0].Alert != all[1].Alert ||
			some[0].Annotations["runbook_url"] != "https://docs.example.com/alerts#"+strings.ToLower(all[1].Alert) {
			t.Errorf("without two: %+v", some)
		}
	})
}

// home is the URL of the page of alerts.
const home = "https://github.com/istio-pod-network/controller/blob/main/docs/alerts.md"

// minutes is the length of the series in these tests. The fault begins after begins minutes without one.
const minutes, begins = 90, 10

// healthy are the series of a node without faults, by metric and further labels: a value, and its growth in each
// minute.
var healthy = map[string][2]float64{
	"up":                                                            {1, 0},
	"istio_pod_network_build_info":                                  {1, 0},
	"istio_pod_network_installed":                                   {1, 0},
	"istio_pod_network_ready":                                       {1, 0},
	"istio_pod_network_bypassed_pods":                               {0, 0},
	"istio_pod_network_waiting_pods":                                {0, 0},
	"istio_pod_network_installation_contested":                      {0, 0},
	`istio_pod_network_mark_latency_seconds_bucket{le="1"}`:         {0, 20},
	`istio_pod_network_mark_latency_seconds_bucket{le="THRESHOLD"}`: {0, 20},
	`istio_pod_network_mark_latency_seconds_bucket{le="TWICE"}`:     {0, 20},
	`istio_pod_network_mark_latency_seconds_bucket{le="+Inf"}`:      {0, 20},
	`istio_pod_network_marks_total{result="failed"}`:                {3, 0},
	`istio_pod_network_marks_total{result="marked"}`:                {0, 20},
	`istio_pod_network_pod_repairs_total{result="failed"}`:          {2, 0},
	`istio_pod_network_pod_repairs_total{result="applied"}`:         {0, 1},
	`istio_pod_network_questions_total{answer="none"}`:              {1, 0},
	`istio_pod_network_questions_total{answer="cache"}`:             {0, 20},
	nodesWithout: {0, 0},
}

const nodesWithout = `kube_daemonset_status_number_unavailable{daemonset="istio-pod-network-agent"}`

// fault makes an alert fire.
type fault struct {
	series map[string][2]float64 // how they continue from then on, without those that only cross the threshold
	gone   []string              // series that end
	all    bool                  // on both nodes; the alert then names no node
	value  string                // the value in the alert's text
}

// faults returns the fault of each alert. Alerts that only compare one metric with the threshold need none here.
func faults(latency float64) map[string]fault {
	grows := func(metric string) fault { return fault{series: map[string][2]float64{metric: {3, 1}}} }
	late := fmt.Sprintf("%gs", latency+latency*0.99)
	return map[string]fault{
		"IstioPodNetworkBypass":        {series: map[string][2]float64{"istio_pod_network_ready": {0, 0}}},
		"IstioPodNetworkNotInstalled":  {series: map[string][2]float64{"istio_pod_network_ready": {0, 0}}},
		"IstioPodNetworkContested":     {},
		"IstioPodNetworkAgentNotReady": {},
		"IstioPodNetworkAgentAway":     {},
		"IstioPodNetworkAgentMissing":  {},
		"IstioPodNetworkWaitsLong":     {},
		"IstioPodNetworkNoAgent":       {gone: []string{"istio_pod_network_build_info"}, all: true},
		"IstioPodNetworkMarksLate": {value: late, series: map[string][2]float64{
			`istio_pod_network_mark_latency_seconds_bucket{le="1"}`:         {200, 0},
			`istio_pod_network_mark_latency_seconds_bucket{le="THRESHOLD"}`: {200, 0},
		}},
		"IstioPodNetworkMarksFail":   grows(`istio_pod_network_marks_total{result="failed"}`),
		"IstioPodNetworkRepairsFail": grows(`istio_pod_network_pod_repairs_total{result="failed"}`),
		"IstioPodNetworkUnanswered":  grows(`istio_pod_network_questions_total{answer="none"}`),
	}
}

// crossing matches the comparison of a metric with the threshold.
var crossing = regexp.MustCompile(`^((?:up|istio_pod_network_\w+|kube_\w+)(?:\{.*?\})?) ([<>]) THRESHOLD`)

// beyond adds the metric that the alert compares to a fault, by that much beyond the threshold.
func (f fault) beyond(a alert, by float64) fault {
	f.series = maps.Clone(f.series)
	if f.series == nil {
		f.series = map[string][2]float64{}
	}
	if m := crossing.FindStringSubmatch(a.Expr); m != nil {
		if m[2] == "<" {
			by = -by
		}
		metric := m[1]
		if strings.HasPrefix(metric, "up{") {
			metric = "up"
		}
		f.series[metric] = [2]float64{*a.Threshold + by, 0}
		f.value = fmt.Sprint(*a.Threshold + by)
	}
	return f
}

// Each alert is silent without a fault, and for a value at its threshold. For its fault it fires after its waiting
// time, not earlier, and it alone.
func TestAlerts(t *testing.T) {
	rendered, file := rules(t, "helm4")
	to := t.TempDir()
	if err := os.WriteFile(filepath.Join(to, "rules.yaml"), file, 0o600); err != nil {
		t.Fatal(err)
	}
	all := alerts(t)
	var late float64
	for _, a := range all {
		if a.Alert == "IstioPodNetworkMarksLate" {
			late = *a.Threshold
		}
	}
	known := faults(late)
	tests := []any{scenario("all is well", fault{}, late, silent(all, begins, minutes))}
	for i, a := range all {
		f, has := known[a.Alert]
		if !has {
			t.Errorf("%s: no fault is known", a.Alert)
			continue
		}
		delete(known, a.Alert)
		if crossing.MatchString(a.Expr) {
			tests = append(tests, scenario(a.Alert+" at its threshold", fault{}.beyond(a, 0), late,
				silent(all, minutes)))
			f = f.beyond(a, 1)
		}
		lasts := int(a.waits(t).Minutes())
		others := slices.Concat(all[:i], all[i+1:])
		checks := slices.Concat(silent(all, begins+lasts-1), silent(others, begins+lasts+2, minutes),
			[]any{fires(rendered[i], f, begins+lasts+2)})
		tests = append(tests, scenario(a.Alert, f, late, checks))
	}
	for name := range known {
		t.Errorf("%s is no alert", name)
	}
	text, err := yaml.Marshal(map[string]any{"rule_files": []string{"rules.yaml"}, "evaluation_interval": "1m",
		"tests": tests})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(to, "tests.yaml"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, to, "test", "rules", "tests.yaml")
}

// silent returns the checks that none of the alerts fires at these minutes.
func silent(all []alert, at ...int) (checks []any) {
	for _, a := range all {
		for _, minute := range at {
			checks = append(checks, map[string]any{"eval_time": fmt.Sprint(minute, "m"), "alertname": a.Alert})
		}
	}
	return checks
}

// fires returns the check that an alert fires, with its labels and texts.
func fires(r rule, f fault, minute int) any {
	labels := map[string]string{"severity": r.Labels["severity"]}
	if !f.all {
		maps.Copy(labels, nodeLabels("node-1"))
	}
	if m := regexp.MustCompile(`(result|answer|daemonset)="(.*?)"`).FindStringSubmatch(r.Expr); m != nil {
		labels[m[1]] = m[2]
	}
	annotations := map[string]string{}
	for key, text := range r.Annotations {
		text = strings.ReplaceAll(text, "{{ $labels.node }}", "node-1")
		annotations[key] = regexp.MustCompile(`\{\{ \$value.*?\}\}`).ReplaceAllString(text, f.value)
	}
	return map[string]any{"eval_time": fmt.Sprint(minute, "m"), "alertname": r.Alert,
		"exp_alerts": []any{map[string]any{"exp_labels": labels, "exp_annotations": annotations}}}
}

func nodeLabels(node string) map[string]string {
	return map[string]string{"node": node, "instance": node + ":15088", "job": system + "/istio-pod-network-agent"}
}

// scenario returns a promtool test with two nodes, where the first one has the fault.
func scenario(name string, f fault, latency float64, checks []any) any {
	var series []any
	for _, node := range []string{"node-1", "node-2"} {
		for metric, is := range healthy {
			values := fmt.Sprintf("%g+%gx%d", is[0], is[1], minutes)
			if then, faulty := f.series[metric]; faulty && node == "node-1" {
				values = fmt.Sprintf("%g+%gx%d %g+%gx%d", is[0], is[1], begins-1, then[0], then[1], minutes-begins)
			}
			if slices.Contains(f.gone, metric) {
				values = fmt.Sprintf("%g+%gx%d stale", is[0], is[1], begins-1)
			}
			name, further, _ := strings.Cut(strings.TrimSuffix(metric, "}"), "{")
			further = strings.ReplaceAll(further, "THRESHOLD", fmt.Sprint(latency))
			further = strings.ReplaceAll(further, "TWICE", fmt.Sprint(2*latency))
			var labels []string
			for key, value := range nodeLabels(node) {
				labels = append(labels, fmt.Sprintf("%s=%q", key, value))
			}
			if further != "" {
				labels = append(labels, further)
			}
			series = append(series, map[string]any{"series": name + "{" + strings.Join(labels, ",") + "}", "values": values})
		}
	}
	return map[string]any{"name": name, "interval": "1m", "input_series": series, "alert_rule_test": checks}
}

package node

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/record"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// A real Prometheus reads a real agent: every query of the dashboard has a value once the agent has worked, no alert is
// even pending while all is well, and each becomes pending by its fault. How long an alert waits, and what it says, is
// conformance/chart's.
func TestPrometheus(t *testing.T) {
	r := newRig(t).withPrimary()
	r.startAgent("--stuck-after=1s", "--repair=apply", "--cni-cache-dir="+r.path("no-cache"), "--netns-dir="+r.dir)
	r.ready()
	p := r.startPrometheus()
	queries := dashboardQueries(t)
	await.Explain(r, "queries without a value, and pending alerts",
		func() string { return fmt.Sprintf("%q %v", queries, p.pending()) })
	pods := 0
	r.eventually("every query of the dashboard has a value", func() bool {
		if pods++; pods < 100 {
			name := fmt.Sprint("cart-", pods)
			r.marked(name, r.sandbox(r.mesh(name)).add(record.Redirect, "injected"))
		}
		maps.DeleteFunc(queries, func(_, query string) bool { return p.hasValue(query) })
		return len(queries) == 0
	})
	if nodes := p.list("/api/v1/label/node/values", url.Values{
		"match[]": {"istio_pod_network_build_info"}}); len(nodes) != 1 || nodes[0] != r.node {
		t.Errorf("the dashboard offers the nodes %q", nodes)
	}
	r.eventually("no alert is pending", func() bool { return len(p.pending()) == 0 })
	_, metrics := r.get("/metrics")
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = strings.NewReader(metrics)
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v %s", err, out)
	}
	known := p.alerts()
	delete(known, "IstioPodNetworkAgentMissing") // by a metric of kube-state-metrics
	for _, f := range faults {
		f.make(r)
		for _, alert := range f.alerts {
			r.eventually(alert+" is pending", func() bool { return p.pending()[alert] })
			delete(known, alert)
		}
		if f.mend != nil {
			f.mend(r)
		}
	}
	if len(known) > 0 {
		t.Errorf("no fault makes these pending: %v", known)
	}
}

// faults are what goes wrong on a node, in their order, and the alerts that have to tell.
var faults = []struct {
	alerts     []string
	make, mend func(*rig)
}{
	{alerts: []string{"IstioPodNetworkWaitsLong"}, make: func(r *rig) { r.waiting("held", corev1.PodStatus{}) }},
	{alerts: []string{"IstioPodNetworkMarksLate"}, make: func(r *rig) {
		rec := recordOf(r.mesh("late"))
		rec.Time = time.Now().Add(-time.Minute)
		r.marked("late", r.put(rec))
	}},
	{alerts: []string{"IstioPodNetworkMarksFail"}, make: func(r *rig) {
		rec := recordOf(r.mesh("unmarked"))
		r.rounds(1)
		back := r.away()
		r.put(rec)
		r.eventually("marking it fails", func() bool { return r.metric(`marks_total{result="failed"}`) > "0" })
		back()
	}},
	{alerts: []string{"IstioPodNetworkUnanswered"}, make: func(r *rig) {
		pod := r.podOf("nobody", meshAnnotations())
		pod.UID = "0f3b2a52-0000-4000-8000-000000000001"
		if code, text := r.sandbox(pod).cni("ADD"); code != 11 {
			r.Errorf("ADD of a pod that is not there: code %d: %s", code, text)
		}
	}},
	{alerts: []string{"IstioPodNetworkRepairsFail"}, make: func(r *rig) {
		r.waiting("early", started(time.Now().Add(-time.Hour)))
	}},
	{alerts: []string{"IstioPodNetworkAgentNotReady"}, make: func(r *rig) {
		must(r, r.store.SetProblem("no backend works"))
	}, mend: func(r *rig) { must(r, r.store.SetProblem("")) }},
	{alerts: []string{"IstioPodNetworkContested"}, make: func(r *rig) {
		conflist := r.path("net.d/10-net.conflist")
		r.eventually("somebody takes the plugin out until the agent notices", func() bool {
			if data, err := os.ReadFile(conflist); err == nil && string(data) != primary {
				must(r, os.WriteFile(conflist, []byte(primary), 0o644))
			}
			return r.metric("installation_contested") == "1"
		})
	}},
	{alerts: []string{"IstioPodNetworkBypass"}, make: func(r *rig) {
		r.eventually("the plugin is chained", func() bool { return r.metric("installed") == "1" })
		r.status(r.mesh("victim"), started(time.Now().Add(3*time.Second))) // whole seconds
	}, mend: func(r *rig) { r.remove("victim") }},
	{alerts: []string{"IstioPodNetworkNotInstalled"}, make: func(r *rig) {
		must(r, os.Remove(r.path("net.d/10-net.conflist")))
	}},
	{alerts: []string{"IstioPodNetworkAgentAway", "IstioPodNetworkNoAgent"}, make: func(r *rig) {
		r.agent.end(syscall.SIGKILL)
	}},
}

// waiting makes a mesh pod with that status whose init wait has been running for an hour.
func (r *rig) waiting(name string, status corev1.PodStatus) {
	r.Helper()
	pod := r.podOf(name, meshAnnotations())
	pod.Spec.InitContainers = []corev1.Container{{Name: "istio-validation", Image: "wait"}}
	began := metav1.NewTime(time.Now().Add(-time.Hour))
	status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "istio-validation",
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: began}}}}
	r.status(r.create(pod), status)
}

// dashboardQueries are those of the chart's dashboard, by panel and legend, for all nodes.
func dashboardQueries(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(chartFile("dashboard.json"))
	must(t, err)
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	must(t, json.Unmarshal(text, &dashboard))
	all := map[string]string{}
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			all[panel.Title+": "+target.LegendFormat] = strings.NewReplacer("$node", ".*", "$__rate_interval", "5s").
				Replace(target.Expr)
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

// prometheus is a running one.
type prometheus struct {
	testing.TB
	began time.Time
}

const prometheusAddress = "127.0.0.1:19090"

// startPrometheus has a Prometheus read the rig's agent as by the chart's PodMonitor, and look at the chart's alerts.
// It ends with the test.
func (r *rig) startPrometheus() *prometheus {
	r.Helper()
	var alerts []struct {
		Alert, Expr, For string
		Threshold        float64
	}
	text, err := os.ReadFile(chartFile("alerts.yaml"))
	must(r, err)
	must(r, yaml.Unmarshal(text, &alerts))
	var rules []map[string]string
	for _, a := range alerts {
		rules = append(rules, map[string]string{"alert": a.Alert, "for": a.For,
			"expr": strings.ReplaceAll(a.Expr, "THRESHOLD", fmt.Sprint(a.Threshold))})
	}
	const often = "500ms"
	for name, content := range map[string]any{
		"rules.yaml": map[string]any{"groups": []any{map[string]any{"name": "g", "rules": rules}}},
		"prometheus.yaml": map[string]any{
			"global":     map[string]string{"scrape_interval": often, "scrape_timeout": often, "evaluation_interval": often},
			"rule_files": []string{"rules.yaml"},
			"scrape_configs": []any{map[string]any{
				"job_name": "istio-pod-network-controller/istio-pod-network-agent",
				"static_configs": []any{map[string]any{"targets": []string{"127.0.0.1:15088"},
					"labels": map[string]string{"node": r.node}}},
			}},
		},
	} {
		data, err := yaml.Marshal(content)
		must(r, err)
		must(r, os.WriteFile(r.path(name), data, 0o600))
	}
	cmd := exec.Command("prometheus", "--config.file="+r.path("prometheus.yaml"), "--storage.tsdb.path="+r.path("tsdb"),
		"--web.listen-address="+prometheusAddress, "--log.level=warn")
	log := &await.Output{}
	cmd.Stdout, cmd.Stderr = log, log
	must(r, cmd.Start())
	r.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	await.Explain(r, "log of Prometheus", log.String)
	p := &prometheus{r, time.Now()}
	r.eventually("Prometheus is ready", func() bool {
		response, err := http.Get("http://" + prometheusAddress + "/-/ready")
		if err != nil {
			return false
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	return p
}

// ask reads what an endpoint answers.
func (p *prometheus) ask(path string, values url.Values, into any) {
	p.Helper()
	response, err := http.Get("http://" + prometheusAddress + path + "?" + values.Encode())
	must(p, err)
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	must(p, err)
	answer := struct{ Data any }{into}
	if err := json.Unmarshal(data, &answer); err != nil || response.StatusCode != http.StatusOK {
		p.Fatalf("%s %v: %s %v", path, values, data, err)
	}
}

func (p *prometheus) list(path string, values url.Values) (all []string) {
	p.Helper()
	p.ask(path, values, &all)
	return all
}

// hasValue reports whether a query has had a number as its value since Prometheus was started.
func (p *prometheus) hasValue(query string) bool {
	p.Helper()
	var answer struct {
		Result []struct{ Values [][2]any }
	}
	at := func(t time.Time) string { return fmt.Sprint(float64(t.UnixMilli()) / 1000) }
	p.ask("/api/v1/query_range", url.Values{"query": {query}, "start": {at(p.began)}, "end": {at(time.Now())},
		"step": {"500ms"}}, &answer)
	for _, series := range answer.Result {
		for _, sample := range series.Values {
			text, _ := sample[1].(string)
			if n, err := strconv.ParseFloat(text, 64); err == nil && !math.IsNaN(n) && !math.IsInf(n, 0) {
				return true
			}
		}
	}
	return false
}

// alerts are the names of all that Prometheus looks at, each with whether it is pending.
func (p *prometheus) alerts() map[string]bool {
	p.Helper()
	var answer struct {
		Groups []struct {
			Rules []struct{ Name, State, Health, LastError string }
		}
	}
	p.ask("/api/v1/rules", nil, &answer)
	all := map[string]bool{}
	for _, rule := range answer.Groups[0].Rules {
		if rule.Health == "err" {
			p.Fatalf("%s: %s", rule.Name, rule.LastError)
		}
		all[rule.Name] = rule.State != "inactive"
	}
	return all
}

func (p *prometheus) pending() map[string]bool {
	p.Helper()
	all := p.alerts()
	maps.DeleteFunc(all, func(_ string, pending bool) bool { return !pending })
	return all
}

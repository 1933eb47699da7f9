// Package prometheus runs Debian's Prometheus for a test. It scrapes agents, and evaluates the chart's alerts.
package prometheus

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
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/await"
	"sigs.k8s.io/yaml"
)

// Job is the agents' job name, as the chart's PodMonitor results in it.
const Job = "istio-pod-network-controller/istio-pod-network-agent"

// Server is a running Prometheus.
type Server struct {
	t     testing.TB
	began time.Time
}

// address is where Prometheus listens. Each test has its own network namespace.
const address = "127.0.0.1:19090"

// Start starts a Prometheus with the scrape configurations and rules. often is the interval of scrapes and evaluations,
// such as 1s. Its files are in dir. It ends with the test.
func Start(t testing.TB, dir, often string, rules []Rule, scrapes ...any) *Server {
	t.Helper()
	s := &Server{t: t, began: time.Now()}
	log := await.NewOutput(t)
	path := func(name string) string { return filepath.Join(dir, name) }
	for name, content := range map[string]any{
		"rules.yaml": map[string]any{"groups": []any{map[string]any{"name": "g", "rules": rules}}},
		"prometheus.yaml": map[string]any{
			"global":         map[string]string{"scrape_interval": often, "scrape_timeout": often, "evaluation_interval": often},
			"rule_files":     []string{"rules.yaml"},
			"scrape_configs": scrapes,
		},
	} {
		data, err := yaml.Marshal(content)
		await.Must(t, err)
		await.Must(t, os.WriteFile(path(name), data, 0o600))
	}
	cmd := exec.Command("prometheus", "--config.file="+path("prometheus.yaml"), "--storage.tsdb.path="+path("tsdb"),
		"--web.listen-address="+address, "--log.level=warn")
	cmd.Stdout, cmd.Stderr = log.File, log.File
	await.Must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	await.Explain(t, "log of Prometheus", log.String)
	return s
}

// Ready reports whether Prometheus is ready.
func (s *Server) Ready() bool {
	response, err := http.Get("http://" + address + "/-/ready")
	if err != nil {
		return false
	}
	defer func() { _ = response.Body.Close() }()
	return response.StatusCode == http.StatusOK
}

// ask calls an endpoint of Prometheus' HTTP API and decodes the field data of the answer.
func (s *Server) ask(path string, values url.Values, into any) {
	s.t.Helper()
	response, err := http.Get("http://" + address + path + "?" + values.Encode())
	await.Must(s.t, err)
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	await.Must(s.t, err)
	answer := struct{ Data any }{into}
	if err := json.Unmarshal(data, &answer); err != nil || response.StatusCode != http.StatusOK {
		s.t.Fatalf("%s %v: %s %v", path, values, data, err)
	}
}

// Values returns the values of a label of a metric.
func (s *Server) Values(label, metric string) (all []string) {
	s.t.Helper()
	s.ask("/api/v1/label/"+label+"/values", url.Values{"match[]": {metric}}, &all)
	return all
}

// HasValue reports whether a query has had a finite number as its value since the start.
func (s *Server) HasValue(query string) bool {
	s.t.Helper()
	var answer struct {
		Result []struct{ Values [][2]any }
	}
	at := func(t time.Time) string { return fmt.Sprint(float64(t.UnixMilli()) / 1000) }
	s.ask("/api/v1/query_range", url.Values{"query": {query}, "start": {at(s.began)}, "end": {at(time.Now())},
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

// WithoutValue deletes queries that have had a value from the map, and reports whether none is left.
func (s *Server) WithoutValue(queries map[string]string) bool {
	s.t.Helper()
	maps.DeleteFunc(queries, func(_, query string) bool { return s.HasValue(query) })
	return len(queries) == 0
}

// State is the state of an alert.
type State string

// States of an alert, as in Prometheus' HTTP API.
const (
	Inactive State = "inactive"
	Pending  State = "pending"
	Firing   State = "firing"
)

// Alerts returns the state of every rule, by name. The test fails if a rule cannot be evaluated.
func (s *Server) Alerts() map[string]State {
	s.t.Helper()
	all := map[string]State{}
	for _, rule := range s.rules() {
		all[rule.Name] = rule.State
	}
	return all
}

// Active returns the state of the pending and firing alerts, by name and node (see About).
func (s *Server) Active() map[string]State {
	s.t.Helper()
	all := map[string]State{}
	for _, rule := range s.rules() {
		for _, a := range rule.Alerts {
			all[rule.Name+About(a.Labels["node"])] = a.State
		}
	}
	return all
}

// About returns the suffix that Active adds to the name of an alert about a node. It is empty if node is.
func About(node string) string {
	if node == "" {
		return ""
	}
	return " on " + node
}

type evaluated struct {
	Name, Health, LastError string
	State                   State
	Alerts                  []struct {
		Labels map[string]string
		State  State
	}
}

func (s *Server) rules() []evaluated {
	s.t.Helper()
	var answer struct{ Groups []struct{ Rules []evaluated } }
	s.ask("/api/v1/rules", nil, &answer)
	for _, rule := range answer.Groups[0].Rules {
		if rule.Health == "err" {
			s.t.Fatalf("%s: %s", rule.Name, rule.LastError)
		}
	}
	return answer.Groups[0].Rules
}

// HaveFired returns the names of the alerts that have fired since the start.
func (s *Server) HaveFired() []string {
	s.t.Helper()
	var all []string
	s.ask("/api/v1/label/alertname/values", url.Values{"match[]": {`ALERTS{alertstate="firing"}`}}, &all)
	return all
}

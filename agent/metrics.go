package agent

import (
	"runtime"
	"time"

	"github.com/istio-pod-network/controller/agent/answer"
	"github.com/istio-pod-network/controller/agent/mark"
	"github.com/istio-pod-network/controller/agent/patrol"
	"github.com/istio-pod-network/controller/install"
	"github.com/istio-pod-network/controller/internal/buildinfo"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics are the metrics in /metrics. docs/agent.md describes them.
type metrics struct {
	registry    *prometheus.Registry
	adds        *prometheus.CounterVec
	addDuration *prometheus.HistogramVec
	marks       *prometheus.CounterVec
	markLatency prometheus.Histogram
	questions   *prometheus.CounterVec
	requests    *prometheus.CounterVec
	installed   prometheus.Gauge
	contested   prometheus.Gauge
	repairs     *prometheus.CounterVec
	podRepairs  *prometheus.CounterVec
	renewals    *prometheus.CounterVec
	patrol      patrol.Metrics
}

const prefix = "istio_pod_network_"

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		adds: counters("add_total", "CNI ADDs that left a record, by what the plugin decided", "decision", "reason",
			"backend"),
		addDuration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: prefix + "add_duration_seconds", Help: "How long a CNI ADD took the plugin, from its record",
			Buckets: []float64{.001, .002, .004, .008, .016, .032, .064, .128, .256, .512, 1, 2, 4, 8},
		}, []string{"decision"}),
		marks: counters("marks_total", "Attempts to mark a pod, by result", "result"),
		markLatency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: prefix + "mark_latency_seconds", Help: "From the end of an ADD until the API server has acknowledged the mark",
			Buckets: []float64{.005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30, 60, 300},
		}),
		questions: counters("questions_total", "Questions of the plugin, by where the answer came from: cache, live (read "+
			"from the API server) or none", "answer"),
		requests: counters("api_requests_total", "Requests to the API server; code is the HTTP status, or <error> where "+
			"none came", "method", "code"),
		installed: prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + "installed",
			Help: "1 while the plugin is installed and chained"}),
		contested: prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + "installation_contested",
			Help: "1 while somebody takes the plugin out again and again, so that repairs wait"}),
		repairs: counters("installation_repairs_total",
			"What had to be made good in the node's CNI directories; the first installation counts too", "cause"),
		podRepairs: counters("pod_repairs_total",
			"What was done about mesh pods whose network was made without the plugin", "result"),
		renewals: counters("rules_renewed_total",
			"Pods whose rules of another release were to be replaced by those of this one, where that is asked for", "result"),
		patrol: patrol.Metrics{
			Bypasses: prometheus.NewCounter(prometheus.CounterOpts{
				Name: prefix + "bypasses_total",
				Help: "Mesh pods whose network was made without the plugin after it had come to the node",
			}),
			Bypassed: prometheus.NewGauge(prometheus.GaugeOpts{
				Name: prefix + "bypassed_pods", Help: "Such pods that are on the node now",
			}),
			Refusing: prometheus.NewGaugeVec(prometheus.GaugeOpts{
				Name: prefix + "family_refused_pods",
				Help: "Mesh pods of both IP families whose sidecar listens in the other one alone, by the family that it refuses",
			}, []string{"family"}),
			Outside: prometheus.NewGaugeVec(prometheus.GaugeOpts{
				Name: prefix + "outside_pods",
				Help: "Pods without rules that what is said now puts into the mesh: opted in after their network was made, or " +
					"nobody knows",
			}, []string{"because"}),
			Older: prometheus.NewGauge(prometheus.GaugeOpts{
				Name: prefix + "older_rules_pods",
				Help: "Pods whose rules another release has written than those that this one writes for the same settings",
			}),
			Waiting: prometheus.NewGauge(prometheus.GaugeOpts{
				Name: prefix + "waiting_pods",
				Help: "Pods whose init wait has been running for longer than --stuck-after, or has given up before",
			}),
			Swept: counters("records_swept_total", "Records removed because their sandbox is gone", "because"),
		},
	}
	for _, cause := range install.Causes { // an alert needs a counter that exists from the beginning
		m.repairs.WithLabelValues(string(cause))
	}
	for _, result := range mark.Results {
		m.marks.WithLabelValues(string(result))
	}
	for _, result := range patrol.Results {
		m.podRepairs.WithLabelValues(result)
	}
	for _, result := range patrol.Renewals {
		m.renewals.WithLabelValues(result)
	}
	m.patrol.Refusing.WithLabelValues(redirect.IPv6.String())
	for _, verdict := range patrol.Outside {
		m.patrol.Outside.WithLabelValues(verdict)
	}
	for _, why := range patrol.Sweeps {
		m.patrol.Swept.WithLabelValues(why)
	}
	for _, source := range answer.Sources {
		m.questions.WithLabelValues(string(source))
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{Name: prefix + "build_info", Help: "1",
		ConstLabels: prometheus.Labels{"version": buildinfo.Version(), "goversion": runtime.Version()}})
	info.Set(1)
	m.registry.MustRegister(m.adds, m.addDuration, m.marks, m.markLatency, m.questions, m.requests,
		m.installed, m.contested, m.repairs,
		m.patrol.Bypasses, m.patrol.Bypassed, m.patrol.Refusing, m.patrol.Outside, m.patrol.Older, m.patrol.Waiting,
		m.patrol.Swept, m.podRepairs, m.renewals, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// showReady adds the metric ready. Prometheus does not see the result of the kubelet's readiness probe.
func (m *metrics) showReady(ready func() bool) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: prefix + "ready", Help: "1 while the agent is ready, as /readyz says",
	}, func() float64 {
		if ready() {
			return 1
		}
		return 0
	}))
}

// showWatches adds the metric watch_away_seconds for each watch.
func (m *metrics) showWatches(all watches) {
	for _, one := range all {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: prefix + "watch_away_seconds", ConstLabels: prometheus.Labels{"resource": one.of},
			Help: "For how long these objects of the API server have not been watched; 0 while they are",
		}, func() float64 {
			since, _ := one.failing()
			if since.IsZero() {
				return 0
			}
			return time.Since(since).Seconds()
		}))
	}
}

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, labels)
}

// added counts an ADD by its record.
func (m *metrics) added(r record.Record) {
	m.adds.WithLabelValues(r.Decision, r.Reason, r.Backend).Inc()
	m.addDuration.WithLabelValues(r.Decision).Observe(float64(r.DurationMicroseconds) / 1e6)
}

// answered counts an answer to the plugin.
func (m *metrics) answered(source answer.Source) { m.questions.WithLabelValues(string(source)).Inc() }

// requested counts a request to the API server.
func (m *metrics) requested(method, code string) { m.requests.WithLabelValues(method, code).Inc() }

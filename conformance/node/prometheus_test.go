package node

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/prometheus"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/record"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// missingAgent is the alert on a metric of kube-state-metrics. TestFaultTable (e2e) makes it fire.
const missingAgent = "IstioPodNetworkAgentMissing"

// A real Prometheus reads a real agent. Every query of the dashboard and of the rules has a value once the agent has
// worked. No alert is pending without a fault, and each becomes pending with its fault. conformance/chart tests how
// long alerts wait and what they say. TestFaultTable (e2e) tests that they fire, and for one node.
func TestPrometheus(t *testing.T) {
	r := newRig(t).withPrimary()
	r.startAgent("--stuck-after=1s", "--repair=apply", "--cni-cache-dir="+r.path("no-cache"), "--netns-dir="+r.dir)
	r.ready()
	rules := prometheus.Rules(t)
	p := prometheus.Start(t, r.dir, "500ms", rules, map[string]any{
		"job_name": prometheus.Job,
		"static_configs": []any{map[string]any{"targets": []string{"127.0.0.1:15088"},
			"labels": map[string]string{"node": r.node}}},
	})
	r.eventually("Prometheus is ready", p.Ready)
	queries := prometheus.Queries(t, ".*")
	maps.Copy(queries, prometheus.Selectors(t, rules))
	maps.DeleteFunc(queries, func(name, _ string) bool { return strings.HasPrefix(name, missingAgent+": ") })
	await.Explain(r, "queries without a value, and alerts that are active",
		func() string { return fmt.Sprintf("%q %v", queries, p.Active()) })
	pods := 0
	r.eventually("every query of the dashboard and of the rules has a value", func() bool {
		if pods++; pods < 100 {
			name := fmt.Sprint("cart-", pods)
			r.marked(name, r.sandbox(r.mesh(name)).add(record.Redirect, "injected"))
		}
		return p.WithoutValue(queries)
	})
	if nodes := p.Values("node", "istio_pod_network_build_info"); len(nodes) != 1 || nodes[0] != r.node {
		t.Errorf("the dashboard offers the nodes %q", nodes)
	}
	r.eventually("no alert is pending", func() bool { return len(p.Active()) == 0 })
	_, metrics := r.get("/metrics")
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = strings.NewReader(metrics)
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("promtool check metrics: %v %s", err, out)
	}
	known := p.Alerts()
	delete(known, missingAgent)
	for _, f := range faults {
		f.make(r)
		for _, alert := range f.alerts {
			r.eventually(alert+" is pending", func() bool { return p.Alerts()[alert] != prometheus.Inactive })
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

// faults are faults of a node, in order, with the alerts that must report them.
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
		r.status(r.mesh("victim"), started(time.Now().Add(3*time.Second))) // times in the API are whole seconds
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

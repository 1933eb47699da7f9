package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/conformance/internal/faulttable"
	"github.com/istio-pod-network/controller/conformance/internal/prometheus"
	"github.com/istio-pod-network/controller/internal/await"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// watcher is a Prometheus that scrapes all agents.
type watcher struct {
	*prometheus.Server
	*rig
	rules []prometheus.Rule
}

// watched starts a Prometheus that discovers the agents' pods as the chart's PodMonitor describes them, and evaluates
// the chart's alerts with seconds in place of minutes.
func (r *rig) watched() *watcher {
	r.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(r, err)
	mux := http.NewServeMux()
	mux.HandleFunc("/agents", r.targets)
	mux.HandleFunc("/metrics", r.kubeState)
	server := &http.Server{Handler: mux}
	go func() { _ = server.Serve(l) }()
	r.Cleanup(func() { _ = server.Close() })
	rules := prometheus.Hastened(prometheus.Rules(r))
	w := &watcher{rig: r, rules: rules}
	w.Server = prometheus.Start(r, r.TempDir(), "1s", rules, map[string]any{
		"job_name": prometheus.Job,
		"http_sd_configs": []any{map[string]string{"url": "http://" + l.Addr().String() + "/agents",
			"refresh_interval": "1s"}},
	}, map[string]any{
		"job_name":       "kube-state-metrics",
		"static_configs": []any{map[string]any{"targets": []string{l.Addr().String()}}},
	})
	await.Explain(r, "active alerts", func() string { return fmt.Sprint(w.Active()) })
	r.eventually("Prometheus reads all agents", func() bool {
		return w.Ready() && slices.Equal(w.Values("node", "istio_pod_network_build_info"), nodeNames())
	})
	return w
}

func nodeNames() (names []string) {
	for _, n := range nodes.Nodes {
		names = append(names, n.Name)
	}
	slices.Sort(names)
	return names
}

// targets serves the agents' pods as Prometheus targets (HTTP service discovery), like the PodMonitor: the port
// metrics, and the label node.
func (r *rig) targets(w http.ResponseWriter, _ *http.Request) {
	type group struct {
		Targets []string          `json:"targets"`
		Labels  map[string]string `json:"labels"`
	}
	list, err := nodes.Client.CoreV1().Pods(system).List(r.ctx,
		metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + daemonSet})
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable) // Prometheus then keeps the previous targets
		return
	}
	all := []group{}
	for _, pod := range list.Items {
		if pod.Status.PodIP != "" {
			all = append(all, group{[]string{net.JoinHostPort(pod.Status.PodIP, fmt.Sprint(agentPort))},
				map[string]string{"node": pod.Spec.NodeName}})
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(all)
}

// kubeState serves the metric of kube-state-metrics about DaemonSets that an alert uses.
func (r *rig) kubeState(w http.ResponseWriter, _ *http.Request) {
	list, err := nodes.Client.AppsV1().DaemonSets("").List(r.ctx, metav1.ListOptions{})
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	const metric = "kube_daemonset_status_number_unavailable"
	fmt.Fprintf(w, "# TYPE %s gauge\n", metric)
	for _, set := range list.Items {
		fmt.Fprintf(w, "%s{namespace=%q,daemonset=%q} %d\n", metric, set.Namespace, set.Name, set.Status.NumberUnavailable)
	}
}

// worked creates and deletes pods until every query of the dashboard, for each node and for all, and every selector of
// a rule has had a value.
func (w *watcher) worked() {
	w.Helper()
	queries := prometheus.Selectors(w, w.rules)
	for _, name := range append(nodeNames(), ".*") {
		maps.Copy(queries, prometheus.Queries(w, name))
	}
	await.Explain(w, "queries without a value", func() string { return fmt.Sprintf("%q", queries) })
	more := 0
	w.eventually("every query of the dashboard and of the rules has a value", func() bool {
		if w.WithoutValue(queries) {
			return true
		}
		more++
		for _, n := range nodes.Nodes {
			w.node = n
			name := fmt.Sprintf("more-%d-%d", n.Number, more)
			w.create(w.meshPod(name))
			w.marked(name)
			w.removed(name)
		}
		w.node = nodes.Nodes[0]
		return false
	})
}

// silent waits until no alert is pending or firing.
func (w *watcher) silent() {
	w.Helper()
	w.eventually("no alert is pending", func() bool { return len(w.Active()) == 0 })
}

// missing is the alert about agents that are not ready.
const missing = "IstioPodNetworkAgentMissing"

// followers are alerts that may follow those of a fault: an agent that is not ready also counts as missing, and the
// repair of a bypass may fail.
var followers = []string{missing, "IstioPodNetworkRepairsFail"}

// fire waits until the alerts of a fault fire for the rig's node, and no others. Only the alert about the DaemonSet has
// no node.
func (w *watcher) fire(f faulttable.Fault) {
	w.Helper()
	want := map[string]prometheus.State{}
	for _, alert := range f.Alerts {
		about := prometheus.About(w.node.Name)
		if alert == missing {
			about = ""
		}
		want[alert+about] = prometheus.Firing
	}
	follows := func(alert string) bool {
		alert, _, _ = strings.Cut(alert, prometheus.About(w.node.Name))
		return len(want) > 0 && slices.Contains(followers, alert)
	}
	var firing map[string]prometheus.State
	if !w.soon(func() bool {
		firing = w.Active()
		maps.DeleteFunc(firing, func(alert string, state prometheus.State) bool {
			_, named := want[alert]
			return state != prometheus.Firing || !named && follows(alert)
		})
		return maps.Equal(firing, want)
	}) {
		w.Errorf("%s: alerts %v; want %v", f.Name, firing, want)
	}
}

// onBusyMachines are the alerts about failed scrapes. With seconds in place of minutes, they may also fire on a busy
// machine.
var onBusyMachines = []string{"IstioPodNetworkAgentAway", "IstioPodNetworkNoAgent", "IstioPodNetworkAgentNotReady"}

// firedOnly fails if an alert has fired that no fault in the table has.
func (w *watcher) firedOnly(all []faulttable.Fault) {
	w.Helper()
	known := slices.Concat(followers, onBusyMachines)
	for _, f := range all {
		known = append(known, f.Alerts...)
	}
	for _, alert := range w.HaveFired() {
		if strings.HasPrefix(alert, "IstioPodNetwork") && !slices.Contains(known, alert) {
			w.Errorf("%s has fired for no fault that has it", alert)
		}
	}
}

package patrol

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/agent/mark"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/fdleak"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	source "k8s.io/client-go/tools/cache/testing"
	kuberecord "k8s.io/client-go/tools/record"
)

func TestMain(m *testing.M) { os.Exit(fdleak.Run(m)) }

// recordsOf are the records of a node, by names of the test.
type recordsOf map[string]record.Record

func (r recordsOf) Ready() bool { return true }

func (r recordsOf) ByPod() map[string][]record.Record {
	all := map[string][]record.Record{}
	for _, record := range r {
		all[mark.PodID(record)] = append(all[mark.PodID(record)], record)
	}
	return all
}

// marksAt are the marks that were written, by the pod's ID.
type marksAt map[string]time.Time

func (m marksAt) MarkedSince(id string) (time.Time, bool) { at, marked := m[id]; return at, marked }

func (m marksAt) Wrote(id string) bool { _, marked := m[id]; return marked }

// questionsOf are the pods about which the plugin has asked, since a time.
type questionsOf struct {
	since time.Time
	about map[types.UID]bool
}

func (q *questionsOf) HeardSince() time.Time { return q.since }

func (q *questionsOf) Asked(uid types.UID) bool { return q.about[uid] }

func (q *questionsOf) Forget(func(types.UID) bool) {}

// chaining is an installation.
type chaining struct {
	since      time.Time
	first      time.Time
	distrusted int
}

func (c *chaining) ChainedSince() time.Time { return c.since }

func (c *chaining) ChainedFirst() time.Time { return c.first }

func (c *chaining) DistrustDropIn() { c.distrusted++ }

// beat is a patrol with pods, records and marks in memory. Its plugin was chained at the start of time. Its repairs do
// nothing.
type beat struct {
	*Patrol
	source       *source.FakeControllerSource
	records      recordsOf
	marks        marksAt
	questions    *questionsOf
	installation *chaining
	cache        string // libcni's directory
	events       *kuberecord.FakeRecorder
}

func patrolling(t *testing.T, pods ...*corev1.Pod) *beat {
	t.Helper()
	c, from := agenttest.Pods(t, func(string) {}, pods...)
	b := &beat{source: from, records: recordsOf{}, marks: marksAt{}, installation: &chaining{since: time.Unix(1, 0)},
		questions: &questionsOf{since: time.Unix(1, 0), about: map[types.UID]bool{}}, cache: t.TempDir()}
	w, events := heard()
	b.events = events
	counter := func() *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "c"}, []string{"why"})
	}
	b.Patrol = New(Config{
		Every: time.Hour, StuckAfter: time.Minute, SweepAfter: time.Minute, Policy: redirect.DefaultPolicy(),
		Boot:  agenttest.Boot,
		Store: record.Store{Dir: t.TempDir()}, Pods: c, Namespaces: agenttest.Namespaces(t, nil, "shop", "kube-system"),
		Reader:  readerOf(c), // has the pods of the cache
		Records: b.records, Marks: b.marks, Questions: b.questions, Installation: b.installation,
		Repairer: NewRepairer(RepairConfig{
			Mode: Off, CacheDir: b.cache, Warner: w, Repairs: counter(), Log: agenttest.Quiet(),
		}),
		Renewer: NewRenewer(RenewConfig{}),
		Warner:  w,
		Metrics: Metrics{
			Bypasses: prometheus.NewCounter(prometheus.CounterOpts{Name: "c"}),
			Bypassed: prometheus.NewGauge(prometheus.GaugeOpts{Name: "g"}), Swept: counter(),
			Refusing: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "g"}, []string{"family"}),
			Older:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "g"}),
			Waiting:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "g"}),
			Outside:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "g"}, []string{"because"}),
		},
		Log: agenttest.Quiet(),
	})
	b.chained = b.installation.since
	for _, pod := range pods {
		b.cached(t, pod)
	}
	return b
}

// cached writes libcni's cache file with the annotations that the pod has when it gets its network.
func (b *beat) cached(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	annotations, err := json.Marshal(pod.Annotations)
	await.Must(t, err)
	address := "10.0.0.1"
	if len(pod.Status.PodIPs) > 0 {
		address = pod.Status.PodIPs[0].IP
	}
	text := cachedWith("1.3", string(pod.UID), "sandbox-of-"+pod.Name, "/run/netns/"+pod.Name, address,
		string(annotations))
	await.Must(t, os.MkdirAll(filepath.Join(b.cache, "results"), 0o755))
	write(t, filepath.Join(b.cache, "results", "net-"+pod.Name+"-eth0"), text, 0o600)
}

// readerOf returns an API server with the pods of the cache.
func readerOf(pods *kube.Pods) agenttest.Reader {
	return func(_ context.Context, namespace, name string) (*corev1.Pod, error) {
		if pod := pods.Named(namespace, name); pod != nil {
			return pod, nil
		}
		return nil, agenttest.NotFound(name)
	}
}

// heard returns a Warner, and the recorder of its Events.
func heard() (*Warner, *kuberecord.FakeRecorder) {
	events := kuberecord.NewFakeRecorder(100)
	return NewWarner(events, agenttest.Quiet()), events
}

// sent returns the Events so far.
func sent(events *kuberecord.FakeRecorder) []string {
	var all []string
	for {
		select {
		case e := <-events.Events:
			all = append(all, e)
		default:
			return all
		}
	}
}

// expectOne fails unless there is exactly one Event, with the reason and the words.
func expectOne(t *testing.T, events *kuberecord.FakeRecorder, reason, words string) {
	t.Helper()
	all := sent(events)
	if len(all) != 1 || !strings.HasPrefix(all[0], "Warning "+reason+" ") || !strings.Contains(all[0], words) {
		t.Errorf("Events %q, want one of %s with %q", all, reason, words)
	}
}

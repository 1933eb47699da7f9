package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/record"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

// podsEnv is the number of mesh pods that fill a node. The maximum is the limit of these kubelets, the default the
// kubelet's own default.
const podsEnv = "E2E_PODS"

func full() int { return numberOf(podsEnv, "PODS", 110, cluster.MostNodePods) }

// numberOf returns an environment variable as a number from 1 to most, or a default if it is not set. It panics on an
// invalid value. option is the user's name for the variable.
func numberOf(variable, option string, without, most int) int {
	text := os.Getenv(variable)
	if text == "" {
		return without
	}
	number, err := strconv.Atoi(text)
	if err != nil || number < 1 || number > most {
		panic(fmt.Sprintf("%s: invalid value %q: want a whole number from 1 to %d", option, text, most))
	}
	return number
}

// markedWithin is the limit for the time between the last ADD of a full node and the mark of its last pod. It only
// applies if PODS is set: in CI too much else runs at the same time.
const markedWithin = 5 * time.Second

// A node is filled with mesh pods at once, as after a drain of another node. All of them start and are marked, and
// nothing leaks.
func TestFullNode(t *testing.T) {
	full := full()
	r := newRig(t)
	defer func(before time.Duration) { patience = before }(patience)
	patience = 20 * time.Minute // 110 pods at once take a minute on an idle machine
	r.installed()
	plain := r.fill("plain", full, r.appPod)
	for i := range full {
		r.control += outside.reached(r.namespace, fmt.Sprint("plain-", i))
	}
	if r.control == 0 {
		r.Error("the detector has seen none of the pods outside the mesh")
	}
	r.clear(r.namespace)
	marks, before := r.watchMarks(), r.answers()
	mesh := r.fill("mesh", full, r.meshPod)
	var latencies []time.Duration
	var lastRecord, lastMark time.Time
	records, _ := record.Store{Dir: r.node.Path(stateDir)}.List()
	r.eventually("every pod is marked", func() bool { return len(marks.all()) == full })
	seen := marks.all()
	recorded := map[string]time.Time{}
	for _, rec := range records { // the record of a sandbox that has failed may still be there
		recorded[rec.PodUID] = later(recorded[rec.PodUID], rec.Time)
	}
	for uid, at := range seen {
		if made, found := recorded[uid]; found {
			latencies = append(latencies, at.Sub(made))
			lastRecord, lastMark = later(lastRecord, made), later(lastMark, at)
		}
	}
	if len(latencies) != full {
		r.Fatalf("%d of %d pods have a record", len(latencies), full)
	}
	slices.Sort(latencies)
	for i := range full {
		name := fmt.Sprint("mesh-", i)
		r.eventually(name+" has tried to reach the peer",
			func() bool { return strings.Contains(r.says(name, "app"), " answer ") })
		r.noLeak(name)
	}
	memory := r.number("process_resident_memory_bytes")
	after, answers := max(lastMark.Sub(lastRecord), 0), r.answers()
	r.note("%d at once run after %.1f s, plain ones with one container after %.1f s; record to mark: median %d ms, "+
		"worst %d ms; last mark %d ms after the last record (at most %v); answers: %d from the watch, %d read, %d none; "+
		"agent %.1f MiB", full, mesh.Seconds(), plain.Seconds(), latencies[full/2].Milliseconds(),
		latencies[full-1].Milliseconds(), after.Milliseconds(), markedWithin, answers[0]-before[0], answers[1]-before[1],
		answers[2]-before[2], memory/(1<<20))
	if os.Getenv(podsEnv) != "" && after > markedWithin {
		r.Errorf("the last of %d pods was marked %v after the last ADD, at most %v are allowed", full, after, markedWithin)
	}
}

// answers returns how many of the plugin's questions the agent on the rig's node has answered so far: from its watches,
// by reading the pod, and not at all.
func (r *rig) answers() (counts [3]int) {
	r.Helper()
	for i, source := range []string{"cache", "live", "none"} {
		counts[i] = int(r.number(fmt.Sprintf("istio_pod_network_questions_total{answer=%q}", source)))
	}
	return counts
}

// number returns the value of a series of the agent on the rig's node. It asks again if the agent does not answer.
func (r *rig) number(series string) (value float64) {
	r.Helper()
	r.succeeds("the agent tells "+series, func() (err error) {
		value, err = strconv.ParseFloat(r.series(series), 64)
		return err
	})
	return value
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// fill creates pods at once, and returns how long it took until all of them ran.
func (r *rig) fill(name string, count int, newPod func(string) *corev1.Pod) time.Duration {
	r.Helper()
	start := time.Now()
	for i := range count {
		pod := newPod(fmt.Sprint(name, "-", i))
		app := container(pod, "app")
		app.Command = append(app.Command, "-every=1s") // at the default rate, so many apps would use the whole machine
		r.create(pod)
	}
	r.eventually("all pods run", func() bool {
		pods, err := nodes.Client.CoreV1().Pods(r.namespace).List(r.ctx, metav1.ListOptions{})
		must(r, err)
		return !slices.ContainsFunc(pods.Items, func(pod corev1.Pod) bool { return !started(&pod) })
	})
	return time.Since(start)
}

// marks has the times at which a client of the API server saw pods marked, by UID.
type marks struct {
	mu sync.Mutex
	at map[string]time.Time
}

func (m *marks) all() map[string]time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.at)
}

// has reports whether a pod was seen marked. all would copy thousands of entries in a soak.
func (m *marks) has(uid string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, marked := m.at[uid]
	return marked
}

// watchMarks watches the pods of the namespace until the end of the test.
func (r *rig) watchMarks() *marks {
	r.Helper()
	m := &marks{at: map[string]time.Time{}}
	factory := informers.NewSharedInformerFactoryWithOptions(nodes.Client, 0, informers.WithNamespace(r.namespace))
	informer := factory.Core().V1().Pods().Informer()
	see := func(object any) {
		pod := object.(*corev1.Pod)
		m.mu.Lock()
		defer m.mu.Unlock()
		if _, known := m.at[string(pod.UID)]; !known && pod.Annotations[annotation.Status] == annotation.Initialized {
			m.at[string(pod.UID)] = time.Now()
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: see,
		UpdateFunc: func(_, object any) { see(object) }})
	must(r, err)
	ctx, cancel := context.WithCancel(r.ctx)
	factory.Start(ctx.Done())
	r.Cleanup(func() { cancel(); factory.Shutdown() })
	r.eventually("the watch is there", informer.HasSynced)
	return m
}

package patrol

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The annotations when a pod got its network decide whether the plugin should have been run for it. Those that the pod
// or its namespace have now do not.
func TestWhatWasSaidThen(t *testing.T) {
	injected := map[string]string{annotation.SidecarStatus: "{}"}
	yes, no := map[string]string{annotation.Initialize: "true"}, map[string]string{annotation.Initialize: "false"}
	none := map[string]string{}
	const injection, annotated = redirect.SelectInjected, redirect.SelectAnnotated
	for name, c := range map[string]struct {
		selection redirect.Selection
		then      map[string]string // nil: libcni's cache does not have them
		now       map[string]string
		namespace map[string]string // now
		asked     bool              // whether the plugin has asked about the pod
		deaf      bool              // whether the agent has started after the pod
		want      verdict
	}{
		"injected":                               {injection, injected, injected, nil, false, false, bypass},
		"injected, plugin asked":                 {injection, injected, injected, nil, true, false, bypass},
		"injected, agent later":                  {injection, injected, injected, nil, false, true, bypass},
		"annotated later":                        {injection, none, injected, nil, false, false, late},
		"annotated later, marked":                {injection, map[string]string{"a": "b"}, injected, nil, false, true, late},
		"opted in later":                         {injection, none, yes, nil, false, false, late},
		"annotated, nobody knows":                {injection, nil, injected, nil, false, false, unknown},
		"opted in, nobody knows":                 {injection, nil, yes, nil, false, true, unknown},
		"annotation taken away":                  {injection, injected, none, nil, false, false, bypass},
		"opted out later":                        {injection, injected, no, nil, false, false, bypass},
		"opted out then":                         {injection, no, injected, nil, false, false, late},
		"plain":                                  {injection, none, none, nil, false, false, fine},
		"plain, nobody knows":                    {injection, nil, none, nil, false, true, fine},
		"a namespace that opts in without a say": {injection, none, none, yes, false, false, fine},

		"opted in by itself":                     {annotated, yes, yes, nil, false, true, bypass},
		"by its namespace":                       {annotated, none, none, yes, false, false, bypass},
		"by its namespace, unseen":               {annotated, none, none, yes, false, false, unknown},
		"by its namespace, later":                {annotated, none, none, yes, true, false, late},
		"by its namespace, before this agent":    {annotated, none, none, yes, false, true, unknown},
		"by its namespace, nobody knows the pod": {annotated, nil, none, yes, false, false, unknown},
		"by its namespace, both unknown":         {annotated, nil, none, yes, false, true, unknown},
		"both later, before this agent":          {annotated, none, yes, yes, false, true, unknown},
		"both later":                             {annotated, none, yes, yes, true, false, late},
		"its namespace does not":                 {annotated, none, none, no, false, false, fine},
		"its namespace does not, agent later":    {annotated, none, none, no, false, true, fine},
		"in by itself, its namespace is not":     {annotated, yes, yes, no, false, true, bypass},
		"out by itself":                          {annotated, no, no, yes, false, false, fine},
	} {
		pod := agenttest.Running("cart")
		b := patrolling(t)
		b.Policy.Selection, b.Policy.Agent = c.selection, true
		b.Namespaces = agenttest.AnnotatedNamespace(t, "shop", c.namespace)
		if c.then != nil {
			pod.Annotations = c.then
			b.cached(t, pod)
			if !strings.HasSuffix(name, ", unseen") {
				b.begins(t, pod)
			}
		}
		pod.Annotations = c.now
		b.questions.about[pod.UID] = c.asked
		if c.deaf {
			b.questions.since = time.Now().Add(time.Hour)
		}
		if got := b.judge(pod, &sighting{}); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// begins has the watch show the pod before it has its network, and then with its network.
func (b *beat) begins(t *testing.T, pod *corev1.Pod) {
	t.Helper()
	first := pod.DeepCopy()
	first.Status = corev1.PodStatus{}
	b.source.Add(first)
	b.source.Modify(pod.DeepCopy())
	await.Eventually(t, time.Minute, "the pod's beginning is known", func() bool {
		_, known := b.Pods.AnnotationsBefore(pod)
		return known
	})
}

// A namespace's opt-in, and an annotation, do not turn running pods into bypasses: not before a restart of the agent,
// and not after it, whoever created the pod. Nothing is deleted, and each pod is reported once.
func TestOptInLater(t *testing.T) {
	const pods = 30
	for _, cache := range []bool{true, false} {
		var all []*corev1.Pod
		for i := range pods {
			pod := agenttest.Running(fmt.Sprint("cart-", i))
			pod.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "cart", Controller: new(true)}}
			pod.Annotations = nil
			all = append(all, pod)
		}
		before := patrolling(t, all...)
		after := patrolling(t)
		for _, b := range []*beat{before, after} {
			b.Policy.Selection, b.Policy.Agent = redirect.SelectAnnotated, true
			b.Repairer.Mode = Delete
			b.Repairer.Pods = deleter(func(name string) error { t.Errorf("%s is deleted", name); return nil })
			b.Namespaces = agenttest.AnnotatedNamespace(t, "shop", map[string]string{annotation.Initialize: "true"})
		}
		after.Store, after.known = before.Store, before.known
		after.questions.since = time.Now().Add(time.Hour)
		if cache {
			after.Repairer.sandboxes = before.Repairer.sandboxes
		} else {
			await.Must(t, os.RemoveAll(before.cache))
		}
		for i, pod := range all {
			before.questions.about[pod.UID] = true
			if i%2 == 0 { // these have an annotation of their own, too
				pod = pod.DeepCopy()
				pod.Annotations = map[string]string{annotation.Initialize: "true"}
				before.source.Modify(pod)
			}
			after.source.Add(pod)
		}
		for n, b := range []*beat{before, after} {
			await.Eventually(t, time.Minute, "the pods are known", func() bool {
				annotated := 0
				for _, pod := range b.Pods.All() {
					annotated += len(pod.Annotations)
				}
				return len(b.Pods.All()) == pods && annotated == pods/2
			})
			for range 4 {
				b.round(t.Context(), time.Now())
			}
			if len(b.Bypassed()) > 0 || b.installation.distrusted > 0 || len(b.Outside()) != pods {
				t.Errorf("agent %d, cache %t: bypasses %q, %d drop-ins given up, outside are %d", n, cache, b.Bypassed(),
					b.installation.distrusted, len(b.Outside()))
			}
			if events := sent(b.events); len(events) != pods {
				t.Errorf("agent %d, cache %t: %d Events: %q", n, cache, len(events), events)
			}
			if counted, bypassed := sum(t, b.Metrics.Outside), sum(t, b.Metrics.Bypassed); counted != pods || bypassed != 0 {
				t.Errorf("agent %d, cache %t: %g and %g are counted", n, cache, counted, bypassed)
			}
		}
	}
}

// goingByNamespace returns a pod without annotations of its own, so that only its namespace can put it into the mesh.
func goingByNamespace(t *testing.T, says map[string]string) (*beat, *corev1.Pod) {
	t.Helper()
	pod := agenttest.Running("cart")
	pod.Annotations = nil
	b := patrolling(t)
	b.cached(t, pod)
	b.begins(t, pod)
	b.Policy.Selection, b.Policy.Agent = redirect.SelectAnnotated, true
	b.Namespaces = agenttest.AnnotatedNamespace(t, "shop", says)
	return b, pod
}

// The next agent does not take a namespace's annotations that were set while no agent was running for earlier ones,
// neither an opt-in nor an opt-out.
func TestNamespaceWhileAway(t *testing.T) {
	yes, no := map[string]string{annotation.Initialize: "true"}, map[string]string{annotation.Initialize: "false"}
	for name, c := range map[string]struct {
		then, now    map[string]string // the namespace's annotations
		served       bool              // whether the plugin was run for the pod
		before, want verdict
	}{
		"opts in":                              {nil, yes, true, fine, unknown},
		"opts in, from a no":                   {no, yes, true, fine, unknown},
		"opts out, and the plugin was run":     {yes, no, true, fine, fine},
		"opts out, and the plugin was not run": {yes, no, false, bypass, bypass},
		"says nothing any more":                {yes, nil, false, bypass, bypass},
		"stays":                                {yes, yes, false, bypass, bypass},
	} {
		b, pod := goingByNamespace(t, c.then)
		b.questions.about[pod.UID] = c.served
		if c.served && c.then[annotation.Initialize] == "true" {
			b.records["r"] = agenttest.RecordFor(pod, "1/1")
		}
		verdictOf := func(p *Patrol) verdict {
			for range certain {
				p.round(t.Context(), time.Now())
			}
			switch {
			case len(p.Bypassed()) > 0:
				return bypass
			case len(p.Outside()) > 0:
				return unknown
			}
			return fine
		}
		if got := verdictOf(b.Patrol); got != c.before {
			t.Errorf("%s, the first agent: %q, want %q", name, got, c.before)
		}
		config := b.Config
		config.Questions = &questionsOf{since: time.Now().Add(time.Hour)}
		config.Namespaces = agenttest.AnnotatedNamespace(t, "shop", c.now)
		if got := verdictOf(New(config)); got != c.want {
			t.Errorf("%s, the next agent: %q, want %q", name, got, c.want)
		}
	}
}

// sum returns the sum of all gauges and counters.
func sum(t *testing.T, metrics prometheus.Collector) (all float64) {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics)
	families, err := registry.Gather()
	await.Must(t, err)
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			all += metric.GetGauge().GetValue() + metric.GetCounter().GetValue()
		}
	}
	return all
}

// The next agent knows the bypasses that were found: it may not be able to find out what a namespace's annotations were
// when a pod got its network.
func TestBypassSurvivesTheAgent(t *testing.T) {
	b, pod := goingByNamespace(t, map[string]string{annotation.Initialize: "true"})
	for range certain {
		b.round(t.Context(), time.Now())
	}
	next := func() *Patrol {
		config := b.Config
		config.Questions = &questionsOf{since: time.Now().Add(time.Hour)}
		p := New(config)
		p.round(t.Context(), time.Now())
		return p
	}
	if got := next().Bypassed(); !slices.Equal(got, []string{"shop/cart"}) {
		t.Errorf("%q bypass the mesh", got)
	}
	// the reason is not known any more: its successor may have no rules either if the plugin is not back
	if p := next(); !p.seen[pod.UID].missed {
		t.Error("it would be made again at any time")
	}
	b.records["r"] = agenttest.RecordFor(pod, "1/1")
	next()
	delete(b.records, "r")
	if got := next().Bypassed(); len(got) > 0 {
		t.Errorf("%q bypass the mesh, though they were repaired", got)
	}
	await.Must(t, os.WriteFile(filepath.Join(b.Store.Dir, BypassesFile), []byte("torn"), 0o600))
	if got := next().Bypassed(); len(got) > 0 {
		t.Errorf("%q bypass the mesh, of a file that cannot be read", got)
	}
}

// Without libcni's cache, the annotations are those that the watch has shown since the pod was created.
func TestWatchFromTheBeginning(t *testing.T) {
	for name, c := range map[string]struct {
		states func(pod *corev1.Pod, tell func())
		want   verdict
	}{
		"injected": {func(pod *corev1.Pod, tell func()) {
			pod.Annotations = map[string]string{annotation.SidecarStatus: "{}"}
			tell()
		}, bypass},
		"annotated before it had a network, and maybe after": {func(pod *corev1.Pod, tell func()) {
			tell()
			pod.Annotations = map[string]string{annotation.SidecarStatus: "{}"}
			tell()
		}, unknown},
		"annotated when its network was reported": {func(pod *corev1.Pod, tell func()) {
			tell()
			pod.Annotations = map[string]string{annotation.SidecarStatus: "{}"}
		}, unknown},
		"seen too late": {func(pod *corev1.Pod, tell func()) {
			pod.Annotations = map[string]string{annotation.SidecarStatus: "{}"}
			pod.Status.StartTime = new(metav1.Now())
			tell()
		}, unknown},
		"other annotations": {func(pod *corev1.Pod, tell func()) {
			pod.Annotations = map[string]string{annotation.SidecarStatus: "{}"}
			tell()
			pod.Annotations = map[string]string{annotation.SidecarStatus: "{}", "example.com/a": "b"}
			tell()
		}, bypass},
	} {
		b := patrolling(t)
		pod := agenttest.MeshPod("cart")
		pod.Annotations = nil
		version := 0
		tell := func() {
			version++
			pod.Labels = map[string]string{annotation.SidecarInject: strings.Repeat("x", version)}
			if b.source.Modify(pod.DeepCopy()); version == 1 {
				b.source.Add(pod.DeepCopy())
			}
			await.Eventually(t, time.Minute, "the state is known", func() bool {
				seen := b.Pods.Named("shop", "cart")
				return seen != nil && len(seen.Labels[annotation.SidecarInject]) == version
			})
		}
		c.states(pod, tell)
		pod.Status = agenttest.Running("cart").Status
		tell()
		await.Eventually(t, time.Minute, name+": it is judged", func() bool {
			return b.judge(b.Pods.Named("shop", "cart"), &sighting{}) == c.want
		})
		pod.Annotations = map[string]string{annotation.SidecarStatus: "{}", "later": ""}
		if tell(); b.judge(b.Pods.Named("shop", "cart"), &sighting{}) != c.want {
			t.Errorf("%s: judged anew, by what is said later", name)
		}
	}
	// annotations before another network
	b := patrolling(t)
	pod := agenttest.MeshPod("cart")
	b.source.Add(pod.DeepCopy())
	pod.Status = agenttest.Running("cart").Status
	b.source.Modify(pod.DeepCopy())
	await.Eventually(t, time.Minute, "the pod is a bypass", func() bool {
		seen := b.Pods.Named("shop", "cart")
		return seen != nil && b.judge(seen, &sighting{}) == bypass
	})
	pod.Status.PodIPs = []corev1.PodIP{{IP: "10.0.0.2"}}
	if got := b.judge(pod, &sighting{}); got != unknown {
		t.Errorf("another network: %q", got)
	}
	// A pod that no longer exists is forgotten. If the API server cannot be asked about a pod, nothing is reported.
	b.Reader = agenttest.Reader(func(context.Context, string, string) (*corev1.Pod, error) {
		return nil, agenttest.NotFound("cart")
	})
	b.source.Delete(pod)
	await.Eventually(t, time.Minute, "the pod is gone", func() bool { return b.Pods.Named("shop", "cart") == nil })
	await.Eventually(t, time.Minute, "it is forgotten", func() bool {
		_, known := b.Pods.AnnotationsBefore(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID("uid-of-cart")}})
		return !known
	})
}

// A file of libcni's cache is read once, and again when it has changed. Only annotations that a decision reads are
// kept.
func TestCacheIsReadOnce(t *testing.T) {
	pod := agenttest.Running("cart")
	pod.Annotations["example.com/large"] = strings.Repeat("x", 1000)
	b := patrolling(t, pod)
	s := &b.Repairer.sandboxes
	read := func() (sandbox, int) {
		all, err := s.all()
		if err != nil || len(all) == 0 {
			t.Fatal(all, err)
		}
		return all[0], len(all)
	}
	first, n := read()
	if _, large := first.annotations["example.com/large"]; large || n != 1 || first.annotations == nil {
		t.Errorf("%d files, %v", n, first.annotations)
	}
	path := filepath.Join(b.cache, "results", "net-cart-eth0")
	info, err := os.Stat(path)
	await.Must(t, err)
	same := strings.Repeat("x", int(info.Size()))
	write(t, path, same, 0o600)
	await.Must(t, os.Chtimes(path, info.ModTime(), info.ModTime()))
	if again, _ := read(); again.containerID != first.containerID {
		t.Error("read again, though it is as it was")
	}
	write(t, path, same+"x", 0o600)
	if all, err := s.all(); err != nil || len(all) != 0 {
		t.Errorf("a file that is another by now: %v, %v", all, err)
	}
	await.Must(t, os.Remove(path))
	if all, err := s.all(); err != nil || len(all) != 0 || len(s.read) != 0 {
		t.Errorf("a file that is gone: %v, %v, %d are kept", all, err, len(s.read))
	}
}

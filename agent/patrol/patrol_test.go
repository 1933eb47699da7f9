package patrol

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/istio-pod-network/controller/agent/kube"
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestBypasses(t *testing.T) {
	chained := time.Date(2026, 11, 1, 12, 0, 0, 500_000_000, time.UTC)
	at := func(d time.Duration) *metav1.Time { return &metav1.Time{Time: chained.Truncate(time.Second).Add(d)} }
	p := patrolling(t)
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		want   bool
	}{
		"started after": {func(*corev1.Pod) {}, true},
		// 12:00:00.9 is told as 12:00:00, and so is 12:00:00.1.
		"started in the same second": {func(p *corev1.Pod) { p.Status.StartTime = at(0) }, false},
		"started before":             {func(p *corev1.Pod) { p.Status.StartTime = at(-time.Minute) }, false},
		"another sandbox much later": {func(p *corev1.Pod) {
			p.Status.StartTime, p.Status.Conditions[0].LastTransitionTime = at(-time.Hour), *at(time.Minute)
		}, true},
		"a sandbox reported a little late": {func(p *corev1.Pod) {
			p.Status.StartTime, p.Status.Conditions[0].LastTransitionTime = at(-time.Hour), *at(20 * time.Second)
		}, false},
		"between two sandboxes": {func(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }, false},
		"an older Kubernetes":   {func(p *corev1.Pod) { p.Status.Conditions = nil }, true},
		"no network":            {func(p *corev1.Pod) { p.Status.PodIPs = nil }, false},
		"host network":          {func(p *corev1.Pod) { p.Spec.HostNetwork = true }, false},
		"static":                {func(p *corev1.Pod) { p.Annotations[kube.KeyMirror] = "x" }, false},
		"over":                  {func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, false},
		"being deleted":         {func(p *corev1.Pod) { p.DeletionTimestamp = at(0) }, false},
		"not in the mesh":       {func(p *corev1.Pod) { delete(p.Annotations, annotation.SidecarStatus) }, false},
		"excluded namespace":    {func(p *corev1.Pod) { p.Namespace = "kube-system" }, false},
		"unreadable":            {func(p *corev1.Pod) { p.Annotations[annotation.ExcludeOutboundPorts] = "x" }, false},
	} {
		pod := agenttest.MeshPod("cart")
		pod.Status = corev1.PodStatus{
			Phase: corev1.PodRunning, StartTime: at(2 * time.Second), PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}},
			Conditions: []corev1.PodCondition{{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionTrue,
				LastTransitionTime: *at(3 * time.Second)}},
		}
		c.change(pod)
		p.cached(t, pod)
		p.cacheRead = false
		if p.chained = chained; (p.judge(pod, &sighting{}) == bypass) != c.want {
			t.Errorf("%s: %t", name, !c.want)
		}
		if p.chained = (time.Time{}); p.judge(pod, &sighting{}) != fine {
			t.Errorf("%s: bypasses what is not chained", name)
		}
	}
}

// Between two sandboxes a pod has no record for a moment, and its status does not say so yet: one look is not enough. A
// pod that does bypass the mesh stays known although the plugin is chained anew, until it has its rules.
func TestBypassIsCertain(t *testing.T) {
	pod := agenttest.Running("cart")
	p := patrolling(t, pod)
	found := func() int { p.round(t.Context(), time.Now()); return len(p.Bypassed()) }
	if found() != 0 {
		t.Error("a bypass after one look")
	}
	p.records["r"] = agenttest.RecordFor(pod, "1/1")
	found()
	delete(p.records, "r")
	if found() != 0 {
		t.Error("a look before the last record counts")
	}
	for range 2 {
		if found() != 1 {
			t.Error("no bypass after two looks")
		}
	}
	p.installation.since = time.Now().Add(time.Hour)
	if found() != 1 {
		t.Error("forgotten, because the plugin was chained anew")
	}
	p.records["r"] = agenttest.RecordFor(pod, "1/1")
	if found() != 0 {
		t.Error("a pod with rules is no bypass")
	}
}

// While the watch is behind, a pod that is gone, or another one of its name, looks like one that has lost its record.
// The API server is asked before anything is said, once for each pod, and not again in a round in which it is away.
func TestGoneIsNoBypass(t *testing.T) {
	pods := []*corev1.Pod{agenttest.Running("cart"), agenttest.Running("till")}
	p := patrolling(t, pods...)
	reads := 0
	away := agenttest.Reader(func(context.Context, string, string) (*corev1.Pod, error) {
		return nil, errors.New("connection refused")
	})
	var answer func() (*corev1.Pod, error)
	p.Reader = agenttest.Reader(func(context.Context, string, string) (*corev1.Pod, error) { reads++; return answer() })
	over := agenttest.Running("cart")
	over.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	another := agenttest.Running("cart")
	another.UID = "another"
	now := time.Now()
	p.round(t.Context(), now)
	for name, c := range map[string]struct {
		answer func() (*corev1.Pod, error)
		reads  int
	}{
		"gone": {func() (*corev1.Pod, error) {
			return nil, agenttest.NotFound("cart")
		}, 2},
		"away":           {func() (*corev1.Pod, error) { return nil, errors.New("connection refused") }, 1},
		"being deleted":  {func() (*corev1.Pod, error) { return over, nil }, 2},
		"another by now": {func() (*corev1.Pod, error) { return another, nil }, 2},
	} {
		reads, answer = 0, c.answer
		p.round(t.Context(), now)
		if found := len(p.Bypassed()); found != 0 || reads != c.reads {
			t.Errorf("%s: %d bypasses, %d reads, want %d", name, found, reads, c.reads)
		}
	}
	// from before the plugin was chained: it does not bypass the mesh, and would be repaired
	waits := agenttest.Running("waits")
	waits.Status.StartTime, waits.Spec.InitContainers = &metav1.Time{Time: time.Unix(0, 0)},
		[]corev1.Container{{Name: "istio-validation"}}
	early := patrolling(t, waits)
	early.Reader = away
	for range 3 {
		early.round(t.Context(), now)
	}
	if all := sent(early.events); len(all) > 0 {
		t.Errorf("of a pod that may be gone: %v", all)
	}
	reads = 0
	p.Reader = agenttest.Reader(func(_ context.Context, _, name string) (*corev1.Pod, error) {
		reads++
		return p.Pods.Named("shop", name), nil
	})
	for range 3 {
		p.round(t.Context(), now)
	}
	if found := len(p.Bypassed()); found != 2 || reads != 2 {
		t.Errorf("%d bypasses after %d reads", found, reads)
	}
	p.records["r"] = agenttest.RecordFor(pods[0], "1/1")
	p.round(t.Context(), now)
	delete(p.records, "r")
	p.Reader = away
	for range 3 {
		p.round(t.Context(), now)
	}
	if found := len(p.Bypassed()); found != 1 {
		t.Errorf("%d bypasses, one of which may be gone since it was repaired", found)
	}
}

// An API server that is away is asked once in a round, not once for every record, and nothing is swept without its
// word.
func TestSweepWithoutAPIServer(t *testing.T) {
	p := patrolling(t)
	for i := range 50 {
		r := agenttest.RecordFor(agenttest.MeshPod(fmt.Sprint("gone-", i)), fmt.Sprint("1/", i))
		r.ContainerID = fmt.Sprint("c", i)
		if err := p.Store.Put(r); err != nil {
			t.Fatal(err)
		}
		p.records[r.ContainerID] = r
	}
	reads, answer := 0, errors.New("connection refused")
	p.Reader = agenttest.Reader(func(context.Context, string, string) (*corev1.Pod, error) { reads++; return nil, answer })
	left := func() int { records, _ := p.Store.List(); return len(records) }
	now := time.Now()
	for _, step := range []struct {
		after       time.Duration
		reads, left int
	}{{0, 0, 50}, {30 * time.Second, 0, 50}, {2 * time.Minute, 1, 50}, {3 * time.Minute, 2, 50}} {
		p.round(t.Context(), now.Add(step.after))
		if reads != step.reads || left() != step.left {
			t.Errorf("after %v: %d reads, %d records left; want %d, %d", step.after, reads, left(), step.reads, step.left)
		}
	}
	static := agenttest.StaticPod("static", "hash")
	p.source.Add(static)
	await.Eventually(t, time.Minute, "the static pod is known",
		func() bool { return p.Pods.Named("shop", "static") != nil })
	r := agenttest.RecordFor(static, "1/99")
	r.PodUID, r.ContainerID = "hash", "static"
	if err := p.Store.Put(r); err != nil {
		t.Fatal(err)
	}
	p.records["static"] = r
	answer = agenttest.NotFound("gone")
	for _, after := range []time.Duration{4 * time.Minute, 10 * time.Minute} {
		if p.round(t.Context(), now.Add(after)); left() != 1 {
			t.Errorf("%d records left, want that of the static pod", left())
		}
	}
}

// A user that only the image names is known from the container's status; what the plugin refuses is said as such.
func TestSharedUser(t *testing.T) {
	linux := func(user, group int64) *corev1.ContainerUser {
		return &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{UID: user, GID: group}}
	}
	const refused = ". Give it another. Such a pod is not let start"
	always, shared := corev1.ContainerRestartPolicyAlways, int64(1337)
	debugger := func(s corev1.SecurityContext) []corev1.EphemeralContainer {
		s.AllowPrivilegeEscalation = new(false)
		return []corev1.EphemeralContainer{
			{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debugger", SecurityContext: &s}},
		}
	}
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		want   string
	}{
		"by the spec": {func(p *corev1.Pod) { p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &shared} },
			"Container app runs with the user 1337 of the sidecar, so its traffic is taken for the sidecar's own and bypasses " +
				"the mesh" + refused},
		"by fsGroup": {func(p *corev1.Pod) { p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: &shared} },
			"Container app has the group 1337 of the sidecar by its fsGroup, so a program that is setgid to that group " +
				"bypasses the mesh" + refused},
		"by supplementalGroups": {func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{SupplementalGroups: []int64{1337}}
		}, "Container app has the group 1337 of the sidecar by its supplemental group" +
			", so a program that is setgid to that group bypasses the mesh" + refused},
		"by a group of the image's": {func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", User: linux(1, 1)}}
			p.Status.ContainerStatuses[0].User.Linux.SupplementalGroups = []int64{1, 1337}
		}, "Container app has the group 1337 of the sidecar by its supplemental group"},
		"an ephemeral container's user": {func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = debugger(corev1.SecurityContext{RunAsUser: &shared})
		}, "Container debugger runs with the user 1337"},
		"an ephemeral container's group": {func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = debugger(corev1.SecurityContext{RunAsGroup: &shared})
		}, "Container debugger runs with the group 1337"},
		"an ephemeral container's user, by the image": {func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = debugger(corev1.SecurityContext{})
			p.Status.EphemeralContainerStatuses = []corev1.ContainerStatus{{Name: "debugger", User: linux(1337, 1)}}
		}, "Container debugger runs with the user 1337"},
		"another ephemeral container": {func(p *corev1.Pod) {
			p.Spec.EphemeralContainers = debugger(corev1.SecurityContext{})
			p.Status.EphemeralContainerStatuses = []corev1.ContainerStatus{{Name: "debugger", User: linux(0, 0)}}
		}, ""},
		"by the image": {func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", User: linux(1337, 0)}}
		}, "user 1337"},
		"group, by the image": {func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", User: linux(1, 1337)}}
		}, "group 1337"},
		"not by the image": {func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", User: linux(1, 1)}}
		}, ""},
		"the sidecar alone": {func(p *corev1.Pod) {
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app"},
				{Name: redirect.ProxyContainer, User: linux(1337, 1337)}, {Name: "gone", User: linux(1337, 1)}}
		}, ""},
		"a native sidecar": {func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: "early"}, {Name: "late", RestartPolicy: &always,
				SecurityContext: p.Spec.Containers[0].SecurityContext}}
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "early", User: linux(1337, 1)},
				{Name: "late", User: linux(1337, 1)}}
		}, "Container late runs with the user 1337"},
	} {
		for _, policy := range []redirect.SharedProxyUser{redirect.SharedWarn, redirect.SharedRefuse} {
			w, events := heard()
			pod := agenttest.MeshPod("cart")
			c.change(pod)
			settings := redirect.DefaultPolicy()
			settings.SharedProxyUser = policy
			w.aboutSettings(pod, nil, settings, record.Record{}, written{}, false)
			want := c.want
			if policy == redirect.SharedWarn {
				want = strings.TrimSuffix(want, refused)
			}
			if want == "" {
				if all := sent(events); len(all) > 0 {
					t.Errorf("%s: %q", name, all)
				}
				continue
			}
			expectOne(t, events, eventSharedUser, want)
		}
	}
}

// As whom the rules know the sidecar stands in the record: an annotation that is set, changed or taken away later hides
// no container that runs so.
func TestSharedUserThen(t *testing.T) {
	for name, now := range map[string]map[string]string{
		"taken away": {annotation.SidecarStatus: "{}"},
		"changed":    {annotation.SidecarStatus: "{}", annotation.EnvoyUserID: "5000"},
		"unreadable": {annotation.SidecarStatus: "{}", annotation.EnvoyUserID: "x"},
		"opted out":  {annotation.SidecarStatus: "{}", annotation.Initialize: "false"},
		"bare":       nil,
	} {
		pod := agenttest.Running("cart")
		spec := redirect.DefaultSpec()
		spec.ProxyUID = 4000
		r := agenttest.RecordFor(pod, "1/1")
		var err error
		r.Spec, err = json.Marshal(spec)
		await.Must(t, err)
		pod.Annotations = now
		pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
			Name: "debugger", SecurityContext: &corev1.SecurityContext{RunAsUser: new(int64(4000))}}}}
		b := patrolling(t, pod)
		b.records["r"] = r
		b.round(t.Context(), time.Now())
		if all := strings.Join(sent(b.events), "\n"); !strings.Contains(all, "Container debugger runs with the user 4000") {
			t.Errorf("%s: Events %q", name, all)
		}
	}
}

// Where a container may gain privileges, that is said once of each pod in the mesh, and not of any other.
func TestEscalationIsAllowed(t *testing.T) {
	inMesh := func(*corev1.Pod) {}
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		allow  *bool // of the app
		want   string
	}{
		"forbidden":         {inMesh, new(false), ""},
		"not forbidden":     {inMesh, nil, "In app a program"},
		"allowed":           {inMesh, new(true), "In app a program"},
		"not in the mesh":   {func(p *corev1.Pod) { p.Annotations = nil }, nil, ""},
		"without a context": {func(p *corev1.Pod) { p.Spec.Containers[0].SecurityContext = nil }, nil, "In app a program"},
		"in another container too": {func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "logs"})
		}, nil, "In app, logs a program"},
	} {
		w, events := heard()
		pod := agenttest.MeshPod("cart")
		pod.Spec.Containers[0].SecurityContext.AllowPrivilegeEscalation = c.allow
		c.change(pod)
		w.aboutSettings(pod, nil, redirect.DefaultPolicy(), record.Record{}, written{}, false)
		if c.want == "" {
			if all := sent(events); len(all) > 0 {
				t.Errorf("%s: %q", name, all)
			}
			continue
		}
		expectOne(t, events, eventEscalation, c.want)
		key := warning{pod.UID, eventEscalation}
		w.sent[key] = sentEvent{w.sent[key].text, time.Now().Add(-repeatAfter)}
		w.aboutSettings(pod, nil, redirect.DefaultPolicy(), record.Record{}, written{}, false)
		if all := sent(events); len(all) > 0 {
			t.Errorf("%s: said again: %q", name, all)
		}
	}
}

func TestWarnerWarnsOnce(t *testing.T) {
	w, events := heard()
	pod := agenttest.MeshPod("cart")
	for range 3 {
		w.warn(pod, eventInvalid, "bad value %q", "x")
	}
	expectOne(t, events, eventInvalid, `bad value "x"`)
	w.warn(pod, eventInvalid, "bad value %q", "y")
	expectOne(t, events, eventInvalid, `bad value "y"`)
	w.warn(pod, eventStuck, "stuck")
	expectOne(t, events, eventStuck, "stuck")
	w.retract(pod.UID, eventStuck)
	w.warn(pod, eventStuck, "stuck")
	expectOne(t, events, eventStuck, "stuck")
	w.sent[warning{pod.UID, eventStuck}] = sentEvent{"stuck", time.Now().Add(-repeatAfter)}
	w.warn(pod, eventStuck, "stuck")
	expectOne(t, events, eventStuck, "stuck")
	w.forget(func(types.UID) bool { return false })
	if len(w.sent) > 0 {
		t.Errorf("%v", w.sent)
	}
}

// What agent.md says is written once is not written again however long it holds, and everything else is.
func TestSaidOnce(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "agent.md"))
	await.Must(t, err)
	_, table, _ := strings.Cut(string(page), "\n## Events\n")
	table, _, _ = strings.Cut(table, "\n## ")
	rows := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (.*) \\|$").FindAllStringSubmatch(table, -1)
	told := map[string]bool{eventRenewed: true, "PluginStays": true} // by others than warn
	for _, row := range rows {
		reason, once := row[1], strings.Contains(row[2], "Written once by an agent")
		if told[reason] {
			continue
		}
		told[reason] = true
		w, events := heard()
		pod := agenttest.MeshPod("cart")
		for range 3 {
			w.warn(pod, reason, "so it is")
			key := warning{pod.UID, reason}
			w.sent[key] = sentEvent{w.sent[key].text, time.Now().Add(-repeatAfter)}
		}
		if want, got := map[bool]int{true: 1, false: 3}[once], len(sent(events)); got != want {
			t.Errorf("%s: %d Events, and agent.md says once: %t", reason, got, once)
		}
	}
	for _, reason := range saidOnce {
		if !told[reason] {
			t.Errorf("agent.md has no row of %s", reason)
		}
	}
}

// What is true of many pods is said by the agent that has marked the pod, and not again by the next one: after an
// upgrade of all agents that would be an Event for each pod of the cluster.
func TestSaidByTheMarkingAgent(t *testing.T) {
	for name, c := range map[string]struct{ marked, wrote, want bool }{
		"not marked yet":           {false, false, true},
		"marked by this agent":     {true, true, true},
		"marked by an earlier one": {true, false, false},
	} {
		pod := agenttest.Running("cart")
		pod.Spec.Containers[0].SecurityContext = nil
		b := patrolling(t, pod)
		if c.marked {
			pod.Annotations[annotation.Status] = annotation.Initialized
		}
		marks := marksAt{}
		if c.wrote {
			marks[string(pod.UID)] = time.Now()
		}
		b.Marks = marks
		b.lookAtSettings(pod, record.Record{}, written{})
		said := slices.ContainsFunc(sent(b.events), func(e string) bool { return strings.Contains(e, eventEscalation) })
		if said != c.want {
			t.Errorf("%s: said is %t", name, said)
		}
	}
}

// What a template says is said of one of its pods, not of all, and not again after a rollout.
func TestSaidOfWorkloads(t *testing.T) {
	w, events := heard()
	owned := func(name, kind, owner string) *corev1.Pod {
		pod := agenttest.MeshPod(name)
		pod.Spec.Containers[0].SecurityContext = nil
		if kind != "" {
			pod.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: owner, Controller: new(true)}}
		}
		return pod
	}
	another := owned("tomcat", "ReplicaSet", "cart-5d8f")
	another.Spec.Containers[0].Name = "tomcat" // what is said of it is another text
	for _, c := range []struct {
		pod  *corev1.Pod
		said bool
	}{
		{owned("one", "ReplicaSet", "cart-5d8f"), true},
		{owned("two", "ReplicaSet", "cart-5d8f"), false},
		{owned("three", "ReplicaSet", "cart-77aa"), false}, // after a rollout
		{another, true},
		{owned("four", "ReplicaSet", "shop-5d8f"), true},
		{owned("five", "StatefulSet", "cart-5d8f"), true},
		{owned("six", "StatefulSet", "cart-77aa"), true}, // whose hyphen is its own
		{owned("bare", "", ""), true}, {owned("bare-too", "", ""), true},
	} {
		w.aboutSettings(c.pod, nil, redirect.DefaultPolicy(), record.Record{}, written{}, false)
		if all := sent(events); (len(all) > 0) != c.said {
			t.Errorf("%s: %q", c.pod.Name, all)
		}
	}
	for key := range w.workloads { // a day later
		w.workloads[key] = time.Now().Add(-workloadAfter)
	}
	next := owned("next-day", "ReplicaSet", "cart-99bb")
	w.aboutSettings(next, nil, redirect.DefaultPolicy(), record.Record{}, written{}, false)
	expectOne(t, events, eventEscalation, "In app a program")
	for i := range mostWorkloads {
		w.saidOf(fmt.Sprint(i), "", "")
	}
	if len(w.workloads) > mostWorkloads {
		t.Errorf("%d workloads are remembered", len(w.workloads))
	}
}

// What is remembered of a workload is small, whatever the length of the name that its pods say.
func TestLongOwnersAreNotRemembered(t *testing.T) {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	w, events := heard()
	before := heap()
	for i := range 64 {
		pod := agenttest.MeshPod("cart")
		pod.UID = types.UID(fmt.Sprint(i))
		pod.OwnerReferences = []metav1.OwnerReference{
			{Kind: "Job", Name: strings.Repeat("x", 1<<20) + fmt.Sprint(i), Controller: new(true)}}
		w.warn(pod, eventEscalation, "text")
		sent(events)
	}
	w.forget(func(types.UID) bool { return false })
	if after := heap(); len(w.workloads) != 64 || after > before+16<<20 {
		t.Errorf("%d workloads, %d bytes of heap, and there were %d", len(w.workloads), after, before)
	}
	runtime.KeepAlive(w)
}

// A refused mark is told of once, in whatever words it is refused again, until a mark has come.
func TestRefusalIsSaidOnce(t *testing.T) {
	w, events := heard()
	pod := agenttest.MeshPod("cart")
	refuse := func(n int) {
		for i := range n {
			w.AboutRefusedMark(pod, fmt.Errorf("request %d is refused", i))
		}
	}
	refuse(3)
	expectOne(t, events, eventRefused, "request 0 is refused")
	w.AboutMark(pod)
	refuse(2)
	expectOne(t, events, eventRefused, "request 0 is refused")
}

// A warning about a pod that has come during a round, which therefore has not seen it, is not forgotten at its end.
func TestWarningOfANewPod(t *testing.T) {
	b := patrolling(t, agenttest.Running("cart"))
	late := agenttest.MeshPod("late")
	b.Reader = agenttest.Reader(func(context.Context, string, string) (*corev1.Pod, error) { // asked during the round
		b.source.Add(late)
		await.Eventually(t, time.Minute, "the pod is known", func() bool { return b.Pods.Named("shop", "late") != nil })
		b.Warner.AboutRefusedMark(late, errors.New("refused"))
		return nil, errors.New("away")
	})
	for range certain {
		b.round(t.Context(), time.Now())
	}
	b.Warner.AboutRefusedMark(late, errors.New("refused"))
	n := 0
	for _, event := range sent(b.events) {
		if strings.Contains(event, eventRefused) {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d Events of one refusal", n)
	}
}

// An app in a group that is left out of the redirection bypasses the mesh, and an init container does not.
func TestGroupLeftOut(t *testing.T) {
	for _, app := range []bool{true, false} {
		w, events := heard()
		pod := agenttest.MeshPod("cart")
		pod.Spec.Containers[0].SecurityContext.AllowPrivilegeEscalation = new(false)
		pod.Annotations[annotation.OwnExcludeOutboundOwnerGroups] = "1338"
		context := &corev1.SecurityContext{RunAsGroup: new(int64(1338)), AllowPrivilegeEscalation: new(false)}
		if app {
			pod.Spec.Containers[0].SecurityContext = context
		} else {
			pod.Spec.InitContainers = append([]corev1.Container{{Name: "migrate", SecurityContext: context}},
				pod.Spec.InitContainers...)
		}
		w.aboutSettings(pod, nil, redirect.DefaultPolicy(), record.Record{}, written{}, false)
		if app {
			expectOne(t, events, eventLeftOut, "Container app runs in the group 1338")
		} else if all := sent(events); len(all) > 0 {
			t.Errorf("%q", all)
		}
	}
}

// A sidecar that listens in IPv4 alone refuses the IPv6 of its pod: that is said once, and counted. What was captured
// when the pod got its network counts, and where nobody here can know what the sidecar is told, nothing is said.
func TestIPv6Refused(t *testing.T) {
	both := []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}}
	elsewhere := corev1.EnvVar{Name: redirect.EnvDualStack, ValueFrom: &corev1.EnvVarSource{}}
	captured := func(families string) func(*record.Record) { return func(r *record.Record) { r.Families = families } }
	for name, c := range map[string]struct {
		ips    []corev1.PodIP
		env    []corev1.EnvVar
		other  bool // not in the mesh
		choice redirect.Captured
		record func(*record.Record) // nil: none
		want   float64
	}{
		"both": {ips: both, want: 1}, "both, IPv6 first": {ips: []corev1.PodIP{both[1], both[0]}, want: 1},
		"listens in both":       {ips: both, env: []corev1.EnvVar{{Name: redirect.EnvDualStack, Value: "true"}}},
		"says that it does not": {ips: both, env: []corev1.EnvVar{{Name: redirect.EnvDualStack, Value: "false"}}, want: 1},
		"says so elsewhere":     {ips: both, env: []corev1.EnvVar{elsewhere}},
		"IPv4":                  {ips: both[:1]}, "IPv6": {ips: both[1:]}, "no address": {},
		"not in the mesh":         {ips: both, other: true},
		"no record, by the proxy": {ips: both, choice: redirect.CapturedProxy},
		"a record":                {ips: both, record: captured(""), want: 1},
		"IPv4 alone":              {ips: both, record: captured("IPv4")},
		"IPv4 alone, now by both": {ips: both, record: captured("IPv4"), choice: redirect.CapturedAll},
		"IPv6 alone":              {ips: both, record: captured("IPv6"), want: 1},
		"both, now by the proxy":  {ips: both, record: captured(""), choice: redirect.CapturedProxy, want: 1},
		"rules of another": {ips: both, record: func(r *record.Record) {
			r.Decision, r.Reason = record.Untouched, string(redirect.ReasonForeignRules)
		}},
	} {
		pod := agenttest.MeshPod("cart")
		pod.Spec.Containers[0].SecurityContext.AllowPrivilegeEscalation = new(false)
		pod.Status.PodIPs = c.ips
		for i := range pod.Spec.Containers {
			if pod.Spec.Containers[i].Name == redirect.ProxyContainer {
				pod.Spec.Containers[i].Env = c.env
			}
		}
		if c.other {
			pod.Annotations = nil
		}
		b := patrolling(t, pod)
		if c.choice != "" {
			b.Policy.Redirect.Families = c.choice
		}
		if c.record != nil {
			r := agenttest.RecordFor(pod, "1/1")
			c.record(&r)
			b.records[string(pod.UID)] = r
		}
		b.round(t.Context(), time.Now())
		registry := prometheus.NewRegistry()
		registry.MustRegister(b.Metrics.Refusing)
		gathered, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		if got := gathered[0].Metric[0].GetGauge().GetValue(); got != c.want {
			t.Errorf("%s: %v pods refuse IPv6, want %v", name, got, c.want)
		}
		if said := strings.Contains(strings.Join(sent(b.events), ""), eventFamily); said != (c.want == 1) {
			t.Errorf("%s: said: %t", name, said)
		}
		key := warning{pod.UID, eventFamily}
		if last, known := b.Warner.sent[key]; known {
			b.Warner.sent[key] = sentEvent{last.text, time.Now().Add(-repeatAfter)}
		}
		b.round(t.Context(), time.Now())
		if all := strings.Join(sent(b.events), ""); strings.Contains(all, eventFamily) {
			t.Errorf("%s: said again: %q", name, all)
		}
	}
}

package patrol

import (
	"context"
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
	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

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

// Events that agent.md says are written once are not repeated, however long their reason persists. All others are.
func TestSaidOnce(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "agent.md"))
	await.Must(t, err)
	_, table, _ := strings.Cut(string(page), "\n## Events\n")
	table, _, _ = strings.Cut(table, "\n## ")
	rows := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (.*) \\|$").FindAllStringSubmatch(table, -1)
	told := map[string]bool{eventRenewed: true, "PluginStays": true} // written by other functions than warn
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

// What is true of many pods is reported by the agent that has marked the pod, not by the next one: otherwise an upgrade
// of all agents would create an Event for each pod of the cluster.
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

// What a pod template causes is reported for one of its pods, and not again after a rollout.
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
	another.Spec.Containers[0].Name = "tomcat" // so its text differs
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
		{owned("six", "StatefulSet", "cart-77aa"), true}, // the hyphen belongs to the name
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

// What is remembered of a workload is small, however long the owner's name is.
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

// A refused mark is reported once, even if the text of the refusal changes, until a mark was written.
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

// A warning about a pod that appeared during a round, so that the round has not seen it, is not forgotten at its end.
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

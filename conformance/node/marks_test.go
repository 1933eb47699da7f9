package node

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/record"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// withPrimary gives the node a network to chain into.
func (r *rig) withPrimary() *rig {
	r.Helper()
	must(r, os.WriteFile(filepath.Join(r.dir, "net.d", "10-net.conflist"), []byte(primary), 0o644))
	return r
}

// Hundreds of pods come, and their records before, with or after them, while the agent is killed and restarted and the
// API server goes away and comes back. In the end every pod has the mark of its latest record, with one write for each
// sandbox, and no other pod was changed.
func TestMarksInAStorm(t *testing.T) {
	r := newRig(t).withPrimary()
	r.startAgent()
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	s := storm{rig: r, expected: map[string]record.Record{}, sandboxes: map[string]int{}, inFlight: map[string]bool{}}
	orders := []func(int){s.podThenRecord, s.recordThenPod, s.deletedBetween, s.nameTakenAgain, s.sandboxReplaced,
		s.leftUntouched, s.outsideMesh}
	const each = 40
	var steps []func()
	for i := range each * len(orders) {
		steps = append(steps, func() { orders[i%len(orders)](i) })
	}
	random.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
	for i, step := range steps {
		switch i {
		case len(steps) / 4:
			r.agent.end(syscall.SIGKILL)
			s.killed()
		case len(steps)/4 + 20:
			r.startAgent()
		case len(steps) / 2:
			// Existing pods get their records while the API server is away.
			failed := func() string { return r.metric(`marks_total{result="failed"}`) }
			before := failed()
			begin := func() func() { back := r.away(); s.killed(); return back }
			s.duringOutage(begin, func() bool { return failed() != before })
		case 3 * len(steps) / 4:
			s.duringOutage(r.paused, r.unread)
		}
		step()
	}
	s.check()
}

// storm has what was done so far.
type storm struct {
	*rig
	expected  map[string]record.Record // by pod name
	sandboxes map[string]int           // by pod UID: number of sandboxes that need a mark
	inFlight  map[string]bool          // by pod UID: a write may have been made that is not in the log
	plain     []*corev1.Pod
	late      []record.Record // of pods that no longer exist
}

// tell writes a record that the pod needs a mark for.
func (s *storm) tell(pod *corev1.Pod, rec record.Record) {
	s.put(rec)
	s.expected[pod.Name] = rec
}

func (s *storm) podThenRecord(i int) {
	pod := s.mesh(fmt.Sprint("pod-first-", i))
	s.sandboxes[string(pod.UID)] = 1
	s.tell(pod, recordOf(pod))
}

// recordThenPod writes the record first. The agent cannot know the pod then: it is bound to the node afterwards.
func (s *storm) recordThenPod(i int) {
	pod := s.podOf(fmt.Sprint("record-first-", i), meshAnnotations())
	pod.Spec.NodeName = ""
	pod = s.create(pod)
	s.sandboxes[string(pod.UID)] = 1
	s.tell(pod, recordOf(pod))
	s.bind(pod)
}

func (s *storm) bind(pod *corev1.Pod) {
	must(s, s.client.CoreV1().Pods(pod.Namespace).Bind(s.ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace}, Target: corev1.ObjectReference{Kind: "Node",
			Name: s.node},
	}, metav1.CreateOptions{}))
}

// killed notes which pods have no mark yet, according to the audit log. The agent or the API server was killed just
// now. A write in progress is logged as failed or not at all, but it may have been made.
func (s *storm) killed() {
	s.Helper()
	_, effective := s.writes()
	for uid, count := range s.sandboxes {
		if effective[uid] < count {
			s.inFlight[uid] = true
		}
	}
}

func (s *storm) deletedBetween(i int) {
	pod := s.mesh(fmt.Sprint("deleted-", i))
	s.remove(pod.Name)
	s.late = append(s.late, s.put(recordOf(pod)))
}

// nameTakenAgain writes a record of a pod that is gone, whose name another pod has now.
func (s *storm) nameTakenAgain(i int) {
	old := s.mesh(fmt.Sprint("again-", i))
	s.remove(old.Name)
	pod := s.mesh(old.Name)
	s.late = append(s.late, s.put(recordOf(old)))
	if i%2 == 0 {
		s.sandboxes[string(pod.UID)] = 1
		s.tell(pod, recordOf(pod))
	} else {
		s.plain = append(s.plain, pod)
	}
}

// sandboxReplaced waits for the mark, because one write could be right for two sandboxes.
func (s *storm) sandboxReplaced(i int) {
	pod := s.mesh(fmt.Sprint("replaced-", i))
	first := s.put(recordOf(pod))
	s.sandboxes[string(pod.UID)] = 2
	if s.agent.running() {
		s.marked(pod.Name, first)
	} else {
		s.sandboxes[string(pod.UID)] = 1
	}
	must(s, s.store.Delete(first.ContainerID, first.IfName))
	s.tell(pod, recordOf(pod))
}

func (s *storm) leftUntouched(i int) {
	pod := s.mesh(fmt.Sprint("untouched-", i))
	rec := recordOf(pod)
	rec.Decision, rec.Reason, rec.Backend = record.Untouched, "mode-none", ""
	s.sandboxes[string(pod.UID)] = 1
	s.tell(pod, rec)
}

func (s *storm) outsideMesh(i int) {
	s.plain = append(s.plain, s.create(s.podOf(fmt.Sprint("plain-", i), nil)))
}

// duringOutage writes records of existing pods while the API server does not answer, until the agent has tried to mark
// one.
func (s *storm) duringOutage(begin func() (end func()), tried func() bool) {
	var pods []*corev1.Pod
	for i := range 10 {
		pods = append(pods, s.mesh(fmt.Sprintf("outage-%d-%d", len(s.expected), i)))
	}
	last := s.mesh(fmt.Sprintf("outage-%d-last", len(s.expected)))
	s.sandboxes[string(last.UID)] = 1
	rec := recordOf(last)
	s.tell(last, rec)
	s.marked(last.Name, rec) // so the agent knows the pods before it, too
	end := begin()
	for _, pod := range pods {
		s.sandboxes[string(pod.UID)] = 1
		s.tell(pod, recordOf(pod))
	}
	s.eventually("the agent tries", tried)
	end()
}

// unread reports whether the API server has data that it has not read (Linux,
// Documentation/networking/proc_net_tcp.rst). /proc/net belongs to the process's first thread. Another test may have
// left that thread in a network namespace that is gone, because the Go runtime does not end it.
func (r *rig) unread() bool {
	r.Helper()
	port := fmt.Sprintf(":%04X", 6443)
	for _, file := range []string{"/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"} {
		data, err := os.ReadFile(file)
		must(r, err)
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			if f[3] == "01" && strings.HasSuffix(f[1], port) && !strings.HasSuffix(f[4], ":00000000") {
				return true
			}
		}
	}
	return false
}

func (s *storm) check() {
	s.Helper()
	missing := func() []string {
		pods, err := s.client.CoreV1().Pods(s.namespace).List(s.ctx, metav1.ListOptions{})
		must(s, err)
		var missing []string
		for _, pod := range pods.Items {
			rec, told := s.expected[pod.Name]
			switch got := markOn(&pod); {
			case told && got != want(rec):
				missing = append(missing, fmt.Sprintf("%s has %v, want %v", pod.Name, got, want(rec)))
			case !told && got != mark{}:
				s.Errorf("%s was touched: %v", pod.Name, got)
			}
		}
		return missing
	}
	await.Success(s, patience, "every pod is marked", func() error {
		if left := missing(); len(left) > 0 {
			return fmt.Errorf("%d pods are not:\n%s", len(left), strings.Join(left, "\n"))
		}
		return nil
	})
	await.Success(s, patience, "every pod is told of each of its sandboxes by one write", s.written)
	for _, pod := range s.plain {
		if now := s.pod(pod.Name); now.ResourceVersion != pod.ResourceVersion {
			s.Errorf("%s has changed", pod.Name)
		}
	}
	s.Logf("%d pods told, %d of them perhaps while something was killed; %d not to be told, %d records of pods that "+
		"were gone", len(s.expected),
		len(s.inFlight), len(s.plain), len(s.late))
}

// written returns an error unless each pod was written once for each of its sandboxes, and no other pod.
func (s *storm) written() error {
	patches, effective := s.writes()
	var wrong []error
	for uid, count := range s.sandboxes {
		if got := effective[uid]; got != count && (!s.inFlight[uid] || got != count-1) {
			wrong = append(wrong, fmt.Errorf("pod %s: %d effective writes (%d requests) for %d sandboxes", uid, got,
				patches[uid], count))
		}
		delete(patches, uid)
	}
	if len(patches) > 0 {
		wrong = append(wrong, fmt.Errorf("pods without a sandbox to be told of were written to: %v", patches))
	}
	return errors.Join(wrong...)
}

// running reports whether the agent is running.
func (a *agent) running() bool {
	select {
	case <-a.done:
		return false
	default:
		return true
	}
}

// 110 pods, as on a node after a reboot, are marked by one agent that starts late. The test prints how long that takes.
func TestBacklog(t *testing.T) {
	r := newRig(t).withPrimary()
	records := map[string]record.Record{}
	for i := range 110 {
		pod := r.mesh(fmt.Sprint("cart-", i))
		records[pod.Name] = r.put(recordOf(pod))
	}
	start := time.Now()
	r.startAgent()
	for name, rec := range records {
		r.marked(name, rec)
	}
	t.Logf("110 pods marked %v after the start of the agent", time.Since(start).Round(time.Millisecond))
	r.eventually("what an earlier agent did not come to mark is counted by this one", func() bool { // once marked
		return r.metric(`add_total{backend="nftables",decision="redirect",reason="injected"}`) == "110"
	})
	r.agent.end(syscall.SIGTERM)
	r.startAgent()
	r.ready()
	r.eventually("the pods are found marked",
		func() bool { return r.metric(`marks_total{result="already-marked"}`) == "110" })
	if got := r.metric(`add_total{backend="nftables",decision="redirect",reason="injected"}`); got != "" {
		t.Errorf("add_total is %q: what an earlier agent has marked is not counted again", got)
	}
	if _, effective := r.writes(); len(effective) != 110 {
		t.Errorf("%d pods were written to", len(effective))
	}
}

// A status from a template is replaced, a removed mark is written again, and a mark that is right is not written.
func TestForeignMarks(t *testing.T) {
	r := newRig(t).withPrimary()
	r.startAgent()
	annotations := meshAnnotations()
	annotations[annotation.Status] = annotation.Initialized
	annotations[annotation.Reason] = "because"
	pod := r.create(r.podOf("pasted", annotations))
	rec := r.put(recordOf(pod))
	r.marked("pasted", rec)

	changed := r.pod("pasted")
	delete(changed.Annotations, annotation.NetNS)
	_, err := r.client.CoreV1().Pods(r.namespace).Update(r.ctx, changed, metav1.UpdateOptions{})
	must(t, err)
	r.marked("pasted", rec)
	r.wrote(pod, 2)
}

// A static pod has another UID for the runtime than for the API server, and only the kubelet can change its mirror pod.
// A pod that is over needs no mark.
func TestNeverMarked(t *testing.T) {
	r := newRig(t).withPrimary()
	r.startAgent()
	annotations := meshAnnotations()
	annotations["kubernetes.io/config.mirror"], annotations["kubernetes.io/config.hash"] = "0123456789abcdef",
		"0123456789abcdef"
	image := r.create(r.podOf("static", annotations))
	rec := recordOf(image)
	rec.PodUID = "0123456789abcdef"
	r.put(rec)
	over := r.mesh("over")
	r.status(over, corev1.PodStatus{Phase: corev1.PodSucceeded})
	first := r.mesh("first")
	r.marked("first", r.put(recordOf(first))) // then the agent has seen the end of the other pod
	r.put(recordOf(over))
	other := r.podOf("elsewhere", meshAnnotations())
	other.Spec.NodeName = "another-node"
	r.put(recordOf(r.create(other)))

	last := r.mesh("last")
	r.marked("last", r.put(recordOf(last))) // then the others would be marked, too
	var patches map[string]int
	await.Explain(r, "written to", func() string { return fmt.Sprint(patches) })
	r.eventually("these two are written to, once, and no other", func() bool {
		patches, _ = r.writes()
		return len(patches) == 2 && patches[string(first.UID)] == 1 && patches[string(last.UID)] == 1
	})
	for _, name := range []string{"static", "over", "elsewhere"} {
		if got := markOn(r.pod(name)); got != (mark{}) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

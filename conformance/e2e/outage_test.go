package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/apiserver"
	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/record"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// visit runs the whole life of a mesh pod: it is created, its sidecar serves its app, and it is deleted. It retries
// while a component is away. The app must not bypass the sidecar at any time.
func (r *rig) visit(pod *corev1.Pod) {
	r.Helper()
	pods := nodes.Client.CoreV1().Pods(pod.Namespace)
	r.succeeds("making "+pod.Name, func() error {
		_, err := pods.Create(r.ctx, pod, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) { // an earlier answer was lost
			return nil
		}
		return err
	})
	var log string
	served := false
	defer func() {
		if !served {
			r.Logf("%s\nagents:\n%s", describe(pod.Namespace), r.agentsSay(pod.Name))
		}
	}()
	r.eventually(pod.Name+" is served by its sidecar", func() bool {
		log = r.says(pod.Name, "app")
		return strings.Count(log, " answer sidecar-outbound ") >= enough
	})
	served = true
	r.succeeds("deleting "+pod.Name, func() error {
		err := pods.Delete(r.ctx, pod.Name, metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	})
	counting.Lock()
	defer counting.Unlock()
	r.tally(pod.Name, log)
}

// agentsSay returns the lines of the agents' logs that contain a pod's name.
func (r *rig) agentsSay(name string) string {
	var lines strings.Builder
	for _, agent := range r.agents() {
		log, _ := nodes.Client.CoreV1().Pods(system).GetLogs(agent.Name, &corev1.PodLogOptions{}).DoRaw(r.ctx)
		for line := range strings.Lines(string(log)) {
			if strings.Contains(line, name) {
				lines.WriteString(line)
			}
		}
	}
	return lines.String()
}

// come creates and deletes mesh pods on the rig's node, atOnce of them at the same time.
func (r *rig) come(pods, atOnce int) {
	r.Helper()
	var next atomic.Int64
	var work sync.WaitGroup
	for range atOnce {
		work.Go(func() {
			for i := next.Add(1); i <= int64(pods); i = next.Add(1) {
				r.visit(r.meshPod(fmt.Sprint("visitor-", i)))
			}
		})
	}
	work.Wait()
	if r.Failed() { // a fatal error in a worker has ended only that goroutine
		r.FailNow()
	}
}

// while repeats do until stop is called, or until the end of the test.
func (r *rig) while(do func(round int)) (stop func()) {
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for round := 0; ; round++ {
			select {
			case <-ended:
				return
			default:
				do(round)
			}
		}
	}()
	return r.until(func() error { close(ended); <-done; return nil })
}

// The agent is killed whenever the kubelet has started it again, while mesh pods come and go.
func TestAgentKilled(t *testing.T) {
	r := newRig(t)
	r.installed()
	r.seen(r.appPod("plain"))
	kills := 0
	stop := r.while(func(int) {
		for _, pid := range r.node.Processes("istio-pod-network-agent") {
			if syscall.Kill(pid, syscall.SIGKILL) == nil {
				kills++
			}
		}
		time.Sleep(1500 * time.Millisecond) // enough for a part of its work, not for all
	})
	r.come(60, 8)
	stop()
	r.note("60 pods, agent killed %d times", kills)
	if kills < 3 {
		t.Errorf("the agent was killed %d times", kills)
	}
	r.agentsReady()
}

// Kubelet and container runtime are killed and restart. Running pods keep their rules, and new pods get theirs.
func TestNodeProgramsKilled(t *testing.T) {
	onEveryNode(t, func(r *rig) {
		r.installed()
		r.seen(r.appPod("plain"))
		r.create(r.meshPod("stays"))
		r.throughSidecar("stays")
		before := r.pod("stays").Annotations[annotation.NetNS]
		for round, program := range []string{"kubelet", "containerd", "kubelet"} {
			visitor := r.meshPod(fmt.Sprint("visitor-", round))
			r.create(visitor) // the program is killed while the pod starts
			must(r, r.node.Kill(program))
			r.throughSidecar(visitor.Name)
		}
		r.throughSidecar("stays")
		if after := r.pod("stays").Annotations[annotation.NetNS]; after != before {
			r.Errorf("the pod that stays is in another network namespace: %s, %s", before, after)
		}
	})
}

// A node reboots. All its pods get new networks, rules and marks, and the old records are gone.
func TestReboot(t *testing.T) {
	onEveryNode(t, func(r *rig) {
		r.installed()
		r.seen(r.appPod("plain"))
		before := map[string]string{}
		for i := range 5 {
			r.create(r.meshPod(fmt.Sprint("cart-", i)))
		}
		for i := range 5 {
			name := fmt.Sprint("cart-", i)
			r.throughSidecar(name)
			before[name] = r.pod(name).Annotations[annotation.NetNS]
		}
		must(r, r.node.Reboot())
		for name, old := range before {
			r.eventually(name+" is marked for its new network", func() bool {
				now := r.pod(name).Annotations
				return now[annotation.NetNS] != old && now[annotation.Status] == annotation.Initialized
			})
			r.throughSidecar(name)
		}
		r.healthy()
		r.succeeds("each pod has one record", func() error { // the record of a failed sandbox is removed with the sandbox
			_, unreadable := record.Store{Dir: r.node.Path(stateDir)}.List()
			if mine := len(r.records()); mine != len(before) || len(unreadable) > 0 {
				return fmt.Errorf("%d records of %d pods, %v", mine, len(before), unreadable)
			}
			return nil
		})
	})
}

// knownByWatch waits until the agent has a pod from its watch. A pod that it has read by a single request may leave its
// cache.
func (r *rig) knownByWatch(name string) {
	r.Helper()
	r.eventually("the agent's watch has brought "+name, func() bool {
		return slices.ContainsFunc(r.agents(), func(agent corev1.Pod) bool {
			if agent.Spec.NodeName != r.node.Name {
				return false
			}
			said, err := asAdmin("kubectl", "exec", "--namespace="+system, agent.Name, "--", "/istio-pod-network-agent",
				"inspect", "pod", r.namespace+"/"+name).Output()
			var known struct {
				UID string `json:"uid"`
			}
			return err == nil && json.Unmarshal(said, &known) == nil && known.UID != ""
		})
	})
}

// The API server is down, in a soak for a minute. Sandboxes that are created again meanwhile get their rules from the
// agent's cache, and their marks when the API server is back.
func TestAPIServerDown(t *testing.T) {
	r := newRig(t)
	r.installed()
	r.seen(r.appPod("plain"))
	r.create(r.meshPod("cart-0"))
	r.throughSidecar("cart-0")
	before := r.pod("cart-0").Annotations[annotation.NetNS]
	r.knownByWatch("cart-0")
	var visits sync.WaitGroup
	visits.Go(func() { r.come(6, 2) })
	back := r.until(nodes.Server.Up)
	nodes.Server.Down()
	uid := ""
	r.eventually("the sandbox of cart-0 is known", func() bool { uid = r.sandboxOf("cart-0"); return uid != "" })
	r.killSandbox("cart-0")
	r.eventually("it has been made again, with its rules", func() bool {
		now := r.sandboxOf("cart-0")
		return now != "" && now != uid
	})
	time.Sleep(inSoak(15*time.Second, time.Minute))
	back()
	r.eventually("the pod is marked for its new network", func() bool {
		pod, err := nodes.Client.CoreV1().Pods(r.namespace).Get(r.ctx, "cart-0", metav1.GetOptions{})
		return err == nil && pod.Annotations[annotation.NetNS] != before
	})
	r.throughSidecar("cart-0")
	visits.Wait()
	r.healthy()
}

// sandboxOf returns the container ID of a mesh pod's sandbox from its newest record, or "".
func (r *rig) sandboxOf(name string) string {
	var newest record.Record
	for _, rec := range r.records() {
		if rec.Name == name && rec.Time.After(newest.Time) {
			newest = rec
		}
	}
	return newest.ContainerID
}

// The agent finds the API server slow, failing or unreachable, while pods come and go.
func TestAPIServerInTrouble(t *testing.T) {
	r := newRig(t)
	r.installed()
	r.seen(r.appPod("plain"))
	r.Cleanup(func() { nodes.Gate.Set(apiserver.Trouble{}) })
	for name, trouble := range map[string]apiserver.Trouble{
		"2 s per call": {Delay: 2 * time.Second}, "500": {Status: http.StatusInternalServerError}, "gone": {Abort: true},
	} {
		start := time.Now()
		nodes.Gate.Set(trouble)
		stop := func() {}
		if trouble.Delay == 0 { // with a delay, pods are still created and marked
			stop = r.while(func(round int) {
				nodes.Gate.Set([]apiserver.Trouble{trouble, {}}[round%2])
				time.Sleep(5 * time.Second)
			})
		}
		r.come(6, 3)
		stop()
		nodes.Gate.Set(apiserver.Trouble{})
		r.note("%s: 6 pods in %.0f s", name, time.Since(start).Seconds())
		r.clear(r.namespace)
	}
	r.healthy()
}

// The agents are away for a long time, with a primary CNI of version 1.1.0, for which the runtime calls STATUS. The
// nodes stay ready, pods outside the mesh start, no pod is evicted, and the agents start again without help.
func TestAgentAwayForLong(t *testing.T) {
	r := newRig(t)
	r.installed()
	r.create(r.meshPod("stays"))
	r.throughSidecar("stays")
	r.stopAgents()
	away := 4 // number of heartbeats
	if soak() > 0 {
		away = 36
	}
	for i := range away {
		r.heartbeat()
		for _, n := range nodes.Nodes {
			r.staysReady(n)
		}
		r.seen(r.appPod(fmt.Sprint("plain-", i)))
	}
	r.create(r.meshPod("waits"))
	r.startAgents()
	r.throughSidecar("waits")
	if pod := r.pod("stays"); pod.DeletionTimestamp != nil || !started(pod) {
		t.Errorf("the mesh pod did not stay: %+v", pod.Status)
	}
	r.throughSidecar("stays")
	r.note("away for %d heartbeats of the nodes", away)
}

// staysReady fails if the kubelet says that its node is not ready. It waits while the control plane does not know,
// because a busy machine was late with heartbeats.
func (r *rig) staysReady(n *cluster.Node) {
	r.Helper()
	r.eventually(n.Name+" is ready", func() bool {
		node, err := nodes.Client.CoreV1().Nodes().Get(r.ctx, n.Name, metav1.GetOptions{})
		must(r, err)
		i := slices.IndexFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == corev1.NodeReady })
		if i >= 0 && node.Status.Conditions[i].Status == corev1.ConditionFalse {
			r.Fatalf("%s is not ready: %s", n.Name, node.Status.Conditions[i].Message)
		}
		return i >= 0 && node.Status.Conditions[i].Status == corev1.ConditionTrue
	})
}

// heartbeat waits until every kubelet has renewed the lease of its node, which it does every ten seconds.
func (r *rig) heartbeat() {
	r.Helper()
	renewed := func(n *cluster.Node) string {
		lease, err := nodes.Client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(r.ctx, n.Name, metav1.GetOptions{})
		must(r, err)
		return lease.Spec.RenewTime.String()
	}
	before := map[string]string{}
	for _, n := range nodes.Nodes {
		before[n.Name] = renewed(n)
	}
	for _, n := range nodes.Nodes {
		r.eventually(n.Name+" renews its lease", func() bool { return renewed(n) != before[n.Name] })
	}
}

package e2e

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/plugin/record"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// soakEnv is the duration of the soak. If it is not set, the short forms run.
const soakEnv = "E2E_SOAK"

func soak() time.Duration {
	d, err := time.ParseDuration(os.Getenv(soakEnv))
	if err != nil && os.Getenv(soakEnv) != "" {
		panic(soakEnv + ": " + err.Error())
	}
	return d
}

// inSoak returns the short duration, or in a soak the long one.
func inSoak(short, long time.Duration) time.Duration {
	if soak() > 0 {
		return long
	}
	return short
}

// Pods of all kinds come and go on every node, while all faults are injected. In the end nothing is left of the pods
// and of the product: no network namespace, mount, record, process, file or rule. The agents' memory has not grown
// beyond a limit.
//
// A node that is rebooted, and an agent that starts again, lose what has grown. So the last third of a soak is measured
// by itself: nothing reboots a node there, and nothing ends an agent.
func TestSoak(t *testing.T) {
	r := newRig(t)
	defer func(before time.Duration) { patience = before }(patience)
	patience = 8 * time.Minute
	r.heal() // without faults at first
	r.uninstalled()
	r.installed()
	seed := seed()
	t.Logf("seed %d; to have the same again: make soak SEED=%d", seed, seed)
	faults := named(cmp.Or(os.Getenv(faultsEnv), "all"))
	before, m := r.warm(), &mixture{ended: map[string]int{}}
	defer func() { // also if a node does not recover
		m.judge(r)
		r.note("%d pods, %d of them stuck, %d leaks (none may be); seed %d", m.pods.Load(), m.stuck(), r.leaks, seed)
	}()
	r.heal = r.inject(faults, seed)
	r.mix(m, seed, soak()-soak()/3, true)
	after := r.left(before)
	inFirst := maps.Clone(m.ended)
	if soak() > 0 {
		calm := slices.DeleteFunc(slices.Clone(faults), func(f fault) bool { return f.name == "agent-killed" })
		before = r.warm()
		r.heal = r.inject(calm, seed+1)
		r.mix(m, seed+1, soak()/3, false)
		after = r.left(before)
	}
	if pods := m.pods.Load(); soak() >= time.Hour && pods < fewestPods {
		r.Errorf("only %d pods came and went, and not %d: the node was too slow for a soak", pods, fewestPods)
	}
	for _, n := range nodes.Nodes {
		r.node = n
		r.note("%s: %v, %s repaired by the last agent", n.Name, after[n.Name],
			r.metric(`pod_repairs_total{result="applied"}`))
		if n.Runtime == cluster.Debian {
			r.note("it was killed in %d calls of RunPodSandbox, which left %d network namespaces", interrupted(n),
				after[n.Name].orphans)
		}
		if soak() > 0 { // the short form reboots the nodes to the end
			r.note("in the last third %s", after[n.Name].growth(before[n.Name], m.ended[n.Name]-inFirst[n.Name]))
		}
	}
	r.uninstalled() // the last upgrade may have left another version
}

// warm creates on each node what it keeps, and returns the nodes' footprints.
func (r *rig) warm() map[string]footprint {
	r.Helper()
	for _, n := range nodes.Nodes {
		r.node = n
		r.come(3, 3)
	}
	r.clear(r.namespace)
	now := map[string]footprint{}
	for _, n := range nodes.Nodes {
		now[n.Name] = r.footprint(n)
	}
	return now
}

// left ends the faults, deletes the pods that are stuck, waits until each node is as before, and returns the nodes'
// footprints.
func (r *rig) left(before map[string]footprint) map[string]footprint {
	r.Helper()
	r.heal()
	r.healthy()
	// under faults Helm may not have waited for the end of the last upgrade
	r.output(kubectlIn(system, "rollout", "status", "daemonset", daemonSet, fmt.Sprint("--timeout=", patience)))
	r.clear(r.namespace)
	now := map[string]footprint{}
	for _, n := range nodes.Nodes {
		now[n.Name] = r.backTo(n, before[n.Name])
	}
	return now
}

// fewestPods is the minimum number of pods in a soak of an hour.
const fewestPods = 1000

// mixture counts the pods of a soak.
type mixture struct {
	pods   atomic.Int64
	ended  map[string]int // number of pods that completed, by node; counting guards it
	silent []string       // names of pods that nothing may hear of; counting guards it
}

// judge counts what pods have sent that should have sent nothing. That includes what they sent after their deletion, so
// it is called when they are gone.
func (m *mixture) judge(r *rig) {
	r.Helper()
	counting.Lock()
	defer counting.Unlock()
	for _, name := range m.silent {
		if leaks := outside.reached(r.namespace, name); leaks > 0 {
			r.Errorf("leak: %s has reached the peer %d times", name, leaks)
			r.leaks += leaks
		}
	}
}

// stuck returns the number of pods that did not complete. Before the end of mix that includes those on their way.
func (m *mixture) stuck() int64 {
	counting.Lock()
	defer counting.Unlock()
	left := m.pods.Load()
	for _, count := range m.ended {
		left -= int64(count)
	}
	return left
}

// mix makes pods of all kinds come and go on every node, for that time of a soak, or about forty pods if it is 0. With
// upheavals, a node is rebooted from time to time, or the agents are upgraded and rolled back.
func (r *rig) mix(m *mixture, seed uint64, lasting time.Duration, upheavals bool) {
	r.Helper()
	const workers = 5 // on each node
	short := int64(40)
	start := time.Now()
	over := func() bool {
		if lasting > 0 {
			return time.Since(start) > lasting
		}
		return m.pods.Load() >= short
	}
	var work sync.WaitGroup
	for _, n := range nodes.Nodes {
		for w := range workers {
			its := *r // it has its own node, but counts for the same scenario
			its.node = n
			random := rand.New(rand.NewPCG(seed, uint64(100*n.Number+w)))
			work.Go(func() {
				for !over() {
					its.anyVisit(random, m) // ends this goroutine if the pod is stuck
					counting.Lock()
					m.ended[n.Name]++
					counting.Unlock()
				}
			})
		}
	}
	stop := func() {}
	if upheavals {
		stop = r.while(func(round int) { r.upheaval(round, over) })
	}
	progress := r.while(func(int) {
		for range 60 {
			if over() {
				time.Sleep(100 * time.Millisecond)
				return
			}
			time.Sleep(time.Second)
		}
		underway := m.stuck()
		counting.Lock()
		fmt.Fprintf(os.Stderr, "soak: %s, %d pods, %d of them on their way, %d attempts, %d leaks\n",
			time.Since(start).Round(time.Second), m.pods.Load(), underway, r.attempts, r.leaks)
		counting.Unlock()
	})
	work.Wait()
	stop()
	progress()
}

// upheaval waits for some time, and then reboots a node or upgrades the agents. The short form does it once.
func (r *rig) upheaval(round int, over func() bool) {
	every := inSoak(20*time.Second, 5*time.Minute)
	for until := time.Now().Add(every); time.Now().Before(until) || soak() == 0 && round > 0; time.Sleep(time.Second) {
		if over() {
			time.Sleep(time.Second)
			return
		}
	}
	if round%3 == 2 {
		// with faults Helm's wait may time out; the test checks the agents when the faults have ended
		_ = helm("upgrade", release, chart(), "--wait", "--timeout=1m", "--set=image.tag="+next()).Run()
		_ = helm("rollback", release, "--wait", "--timeout=1m").Run()
		return
	}
	n := nodes.Nodes[round%3%len(nodes.Nodes)]
	if err := n.Reboot(); err != nil {
		r.Errorf("rebooting %s: %v", n.Name, err)
	}
}

// anyVisit runs the whole life of a pod of a random kind.
func (r *rig) anyVisit(random *rand.Rand, m *mixture) {
	r.Helper()
	number := m.pods.Add(1)
	name := func(kind string) string { return fmt.Sprint(kind, "-", number) }
	silent := func(pod *corev1.Pod) {
		counting.Lock()
		defer counting.Unlock()
		m.silent = append(m.silent, pod.Name)
	}
	switch n := random.IntN(20); {
	case n < 11:
		r.visit(r.meshPod(name("mesh")))
	case n < 13:
		r.visit(native(r.meshPod(name("native"))))
	case n < 15 && r.node == nodes.Nodes[0]:
		r.visit(inUserNamespace(r.meshPod(name("users"))))
	case n < 16:
		pod := r.meshPod(name("opted-out"))
		pod.Annotations[initialize] = "false"
		r.outsider(pod, func() bool { return strings.Contains(r.says(pod.Name, "app"), "answer peer") })
	case n < 17:
		pod := r.meshPod(name("invalid"))
		pod.Annotations["traffic.sidecar.istio.io/excludeOutboundPorts"] = "80;" // which nobody understands
		silent(pod)
		r.outsider(pod, func() bool { // if the plugin was not called, the wait holds the pod
			return strings.Contains(events(r.namespace), pod.Name+" FailedCreatePodSandBox") ||
				strings.Contains(r.says(pod.Name, "istio-validation"), "is absent")
		})
	case n < 18: // deleted before it runs
		pod := r.meshPod(name("hurried"))
		silent(pod)
		r.outsider(pod, func() bool { return true })
	default:
		pod := r.appPod(name("plain"))
		r.outsider(pod, func() bool { return outside.reached(r.namespace, pod.Name) > 0 })
		counting.Lock()
		r.control += outside.reached(r.namespace, pod.Name)
		counting.Unlock()
	}
}

// outsider runs the whole life of a pod without a sidecar. It is deleted when done holds.
func (r *rig) outsider(pod *corev1.Pod, done func() bool) {
	r.Helper()
	pods := nodes.Client.CoreV1().Pods(pod.Namespace)
	r.succeeds("making "+pod.Name, func() error { _, err := pods.Create(r.ctx, pod, metav1.CreateOptions{}); return err })
	r.eventually(pod.Name+" has done it", done)
	r.succeeds("deleting "+pod.Name, func() error { return pods.Delete(r.ctx, pod.Name, metav1.DeleteOptions{}) })
}

// footprint counts what pods and agents may leave on a node.
type footprint struct {
	netns, records, processes int
	orphans                   int      // network namespaces that the runtime itself has lost, not in netns
	temporary                 []string // paths of files of ours
	files, memory             int      // of the agent: open file descriptors, and resident memory in KiB
	agents                    []int    // process IDs
	rules                     int      // our nftables tables outside pods
	mounts                    []string
}

// countable returns the counts that must be equal before and after.
func (f footprint) countable() [6]int {
	return [...]int{f.netns, f.records, len(f.temporary), f.processes, f.rules, len(f.mounts)}
}

// String returns the footprint as a cell of the table.
func (f footprint) String() string {
	return fmt.Sprintf("netns %d, mounts %d, records %d, processes %d, agent's files %d and memory %.1f MiB", f.netns,
		len(f.mounts), f.records, f.processes, f.files,
		float64(f.memory)/1024)
}

func (r *rig) footprint(n *cluster.Node) footprint {
	r.Helper()
	var f footprint
	entries, _ := os.ReadDir(n.Path("/run/netns"))
	f.netns = len(entries)
	f.mounts = ownMounts(r.output(n.Command("cat", "/proc/self/mounts")))
	records, unreadable := record.Store{Dir: n.Path(stateDir)}.List()
	f.records = len(records) + len(unreadable)
	for _, pattern := range []string{stateDir + "/pods/.*", stateDir + "/.*", cluster.ConfDir + "/.*",
		cluster.ConfDir + "/*/.*", cluster.BinDir + "/.*"} {
		found, _ := filepath.Glob(n.Path(pattern))
		for _, path := range found {
			if !strings.HasSuffix(path, ".lock") {
				f.temporary = append(f.temporary, path)
			}
		}
	}
	f.processes = n.PodProcesses()
	f.rules = strings.Count(r.output(n.Command("nft", "list", "tables")), "istio-pod-network")
	f.agents = n.Processes(daemonSet)
	for _, pid := range f.agents {
		open, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		f.files += len(open)
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if _, after, found := strings.Cut(string(status), "VmRSS:"); found {
			var kib int
			_, _ = fmt.Sscan(after, &kib)
			f.memory += kib
		}
	}
	return f
}

// ownMounts returns the lines of a node's mounts that are below directories of the node's own. It has copies of the
// machine's mounts, too, and those go whenever somebody removes on the machine what they are mounted on.
func ownMounts(mounts string) []string {
	var own []string
	for line := range strings.Lines(mounts) {
		fields := strings.Fields(line)
		if len(fields) > 1 && slices.ContainsFunc([]string{"/run/", "/var/", "/etc/", "/opt/"},
			func(dir string) bool { return strings.HasPrefix(fields[1], dir) }) {
			own = append(own, line)
		}
	}
	return own
}

// How much more an agent may use at the end, independent of the number of pods: file descriptors, and KiB of memory.
const (
	moreFiles  = 8
	moreMemory = 16 << 10
)

// growth returns the increase per thousand pods, or the total for fewer pods. Each value has the limit that backTo
// allows. It says so if the agent has started again after before.
func (f footprint) growth(before footprint, pods int) string {
	thousands, of := float64(pods)/1000, "per thousand of"
	if thousands < 1 {
		thousands, of = 1, "after"
	}
	per := func(what string, more, most float64, unit string) string {
		return fmt.Sprintf("%s %+.2f%s (at most %.2f)", what, more/thousands, unit, most/thousands)
	}
	again := ""
	if !slices.Equal(f.agents, before.agents) {
		again = "; the agent has started again, so its files and memory are of fewer pods"
	}
	return fmt.Sprintf("%s %d pods: %s, %s, %s, %s%s", of, pods,
		per("network namespaces", float64(f.netns-before.netns), 0, ""),
		per("records", float64(f.records-before.records), 0, ""),
		per("agent's files", float64(f.files-before.files), moreFiles, ""),
		per("memory", float64(f.memory-before.memory)/1024, moreMemory>>10, " MiB"), again)
}

// interrupted returns in how many calls of RunPodSandbox a node's containerd was killed, by its log. Debian's
// containerd 1.6 saves a sandbox after its network. If it is killed before, it leaves the network namespace, and nobody
// knows of it (https://github.com/containerd/cri/issues/568). Other releases save the sandbox first: for them it is 0.
func interrupted(n *cluster.Node) (calls int) {
	if n.Runtime != cluster.Debian {
		return 0
	}
	unanswered := map[string]bool{} // by the sandbox's metadata
	for _, path := range nodes.Logs() {
		if filepath.Base(path) != n.Name+"-containerd.log" {
			continue
		}
		log, _ := os.ReadFile(path)
		for line := range strings.Lines(string(log)) {
			_, call, is := strings.Cut(line, "RunPodSandbox for &PodSandboxMetadata")
			pod, answer, _ := strings.Cut(call, "}")
			switch {
			case strings.Contains(line, `msg="starting containerd"`):
				calls += len(unanswered)
				clear(unanswered)
			case is && strings.HasPrefix(strings.TrimSpace(answer), `"`): // nothing but the end of the message
				unanswered[pod] = true
			case is:
				delete(unanswered, pod)
			}
		}
	}
	return calls
}

// backTo waits until a node is as before, apart from moreFiles and moreMemory of the agent, and returns its footprint.
// It does not end the test, so that the growth is reported also if it is too much.
func (r *rig) backTo(n *cluster.Node, before footprint) (now footprint) {
	r.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Second) {
		now = r.footprint(n)
		if more := now.netns - before.netns; more > 0 {
			now.orphans = min(more, interrupted(n))
			now.netns -= now.orphans
		}
		if now.countable() == before.countable() && now.files <= before.files+moreFiles &&
			now.memory <= before.memory+moreMemory {
			return now
		}
		if time.Now().After(deadline) {
			break
		}
	}
	mounts := slices.DeleteFunc(slices.Clone(now.mounts), func(m string) bool { return slices.Contains(before.mounts, m) })
	r.Errorf("%s is not as it was within %v: it was\n%v and is\n%v, files of ours that were to be temporary %q "+
		"(before %q), %d tables of ours (%d before); mounts that were not there before:\n%s", n.Name, patience, before, now,
		now.temporary, before.temporary, now.rules, before.rules, strings.Join(mounts, ""))
	return now
}

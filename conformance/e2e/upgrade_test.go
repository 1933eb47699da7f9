package e2e

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/build"
	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var counting sync.Mutex // guards the rig's attempts and leaks

// churn creates and deletes mesh pods on a node, one after the other, until it is stopped.
type churn struct {
	*rig
	node  *cluster.Node
	ended chan struct{}
	waits []string // versions of the pods' init waits, in turn

	pods    int
	longest time.Duration // longest time until a pod ran
}

func (c *churn) run() {
	for ; ; c.pods++ {
		select {
		case <-c.ended:
			return
		default:
		}
		name := fmt.Sprintf("churn-%d-%d", c.node.Number, c.pods)
		pod := c.meshPod(name)
		pod.Spec.NodeSelector[corev1.LabelHostname] = c.node.Name
		container(pod, "istio-validation").Image = pluginOf(c.waits[c.pods%len(c.waits)])
		start := time.Now()
		c.create(pod)
		c.eventually(name+" runs", func() bool { return started(c.pod(name)) })
		c.longest = max(c.longest, time.Since(start))
		c.eventually(name+" is served by its sidecar", func() bool {
			return strings.Count(c.says(name, "app"), " answer sidecar-outbound ") >= enough
		})
		log := c.attemptsOf(name)
		counting.Lock()
		c.tally(name, log)
		counting.Unlock()
		_ = nodes.Client.CoreV1().Pods(c.namespace).Delete(c.ctx, name, metav1.DeleteOptions{})
	}
}

// Agents are upgraded to another version and rolled back while mesh pods come and go. Nothing leaks, and a pod that
// starts while no agent answers waits for the next agent.
func TestUpgradeUnderChurn(t *testing.T) {
	r := newRig(t)
	r.uninstalled()
	r.installed()
	r.seen(r.appPod("plain"))
	r.underChurn([]string{version()}, func() { r.upgradeAndBack(next(), func() {}, "--set=image.tag="+next()) })
	r.runsVersion(version())
}

// underChurn calls do while mesh pods come and go on every node.
func (r *rig) underChurn(waits []string, do func()) {
	r.Helper()
	var all []*churn
	var working sync.WaitGroup
	ended := make(chan struct{})
	for _, n := range nodes.Nodes {
		c := &churn{rig: r, node: n, ended: ended, waits: waits}
		all = append(all, c)
		working.Go(c.run)
	}
	stop := sync.OnceFunc(func() { close(ended); working.Wait() })
	defer stop()
	do()
	stop()
	pods, longest := 0, time.Duration(0)
	for _, c := range all {
		pods, longest = pods+c.pods, max(longest, c.longest)
		if c.pods == 0 {
			r.Errorf("no pod has come on %s", c.node.Name)
		}
	}
	refused := 0
	for line := range strings.Lines(events(r.namespace)) {
		if strings.Contains(line, "FailedCreatePodSandBox") {
			refused++
			if !ofReplacedAgent(line) && !ofBusyRuntime(line) {
				r.Errorf("refused for another reason than an agent that is being replaced: %s", line)
			}
		}
	}
	r.note("%d pods, %d refused for a moment, the longest start %.1f s", pods, refused, longest.Seconds())
}

// ofReplacedAgent reports whether a kubelet's Event says that the plugin had no agent to answer it in time. An agent of
// 0.1.0 that ends also answers that its work was cancelled.
func ofReplacedAgent(event string) bool {
	return strings.Contains(event, "asking the agent on socket ") &&
		(strings.Contains(event, ": no answer within ") || strings.Contains(event, ": context canceled"))
}

// ofBusyRuntime reports whether a kubelet's Event says that containerd has given up, as it does after 2 s in which
// runc has done nothing (io.containerd.timeout.task.state), and not a plugin.
func ofBusyRuntime(event string) bool {
	return strings.Contains(event, "code = DeadlineExceeded ") && !strings.Contains(event, "plugin type=")
}

// A pod has the rules of an earlier release. A metric and an Event say so, and nothing changes until the operator asks
// for a renewal. Then the pod gets this release's rules, without a restart and without a new mark.
func TestRenewal(t *testing.T) {
	r := newRig(t)
	r.installed()
	r.seen(r.appPod("plain"))
	r.create(r.meshPod("cart-0"))
	r.throughSidecar("cart-0")
	pod, rules := r.pod("cart-0"), r.ruleset("cart-0")
	r.aged(pod)
	r.eventually("the pod is told that its rules are older", func() bool {
		return strings.Contains(events(r.namespace), "OlderRules")
	})
	if r.ruleset("cart-0") == rules {
		t.Error("the rules have not been those of before")
	}
	r.throughSidecar("cart-0")
	r.installed("renewRules={" + r.namespace + "}")
	r.eventually("the rules are renewed, and no pod is counted any more", func() bool {
		counted := metrics(r.node.Address())
		return strings.Contains(counted, "istio_pod_network_rules_renewed_total{result=\"renewed\"} 1\n") &&
			strings.Contains(counted, "istio_pod_network_older_rules_pods 0\n")
	})
	r.eventually("the pod is told so", func() bool { return strings.Contains(events(r.namespace), "RulesRenewed") })
	if got := r.ruleset("cart-0"); got != rules {
		t.Errorf("the rules are\n%s\nnot\n%s", got, rules)
	}
	now := r.pod("cart-0")
	if !maps.Equal(now.Annotations, pod.Annotations) {
		t.Errorf("annotated %v, before %v", now.Annotations, pod.Annotations)
	}
	for _, c := range slices.Concat(now.Status.InitContainerStatuses, now.Status.ContainerStatuses) {
		if c.RestartCount > 0 {
			t.Errorf("container %s was restarted %d times", c.Name, c.RestartCount)
		}
	}
	r.throughSidecar("cart-0")
	r.answersFrom("sidecar-inbound", now, 8080)
}

// aged gives a running pod the rules of an earlier release, and changes its record accordingly.
func (r *rig) aged(pod *corev1.Pod) {
	r.Helper()
	file := filepath.Join(build.Root(), "plugin", "netfilter", "testdata", "before", "default.nft")
	older, err := os.ReadFile(file)
	must(r, err)
	load := r.inPod(pod.Name, "nft", "-f", "-")
	load.Stdin = strings.NewReader("flush ruleset\n" + string(older)) // in one transaction
	r.output(load)
	r.output(r.node.Command("sh", "-ec", fmt.Sprintf(`cd /run/istio-pod-network/pods
		file=$(grep -l %s *.json)
		sed 's/"ruleSetHash":"[^"]*"/"ruleSetHash":"0123456789abcdef"/' $file >.aged
		grep -q 0123456789abcdef .aged
		mv .aged $file`, pod.UID)))
}

// upgradeAndBack upgrades the release to another version, calls between, and rolls back.
func (r *rig) upgradeAndBack(version string, between func(), flags ...string) {
	r.Helper()
	values := state
	state = nil
	r.output(helm(append([]string{"upgrade", release, chart(), "--wait", waits()}, flags...)...))
	r.agentsReady()
	r.runsVersion(version)
	between()
	r.output(helm("rollback", release, "--wait", waits()))
	r.agentsReady()
	state = values
}

// runsVersion fails unless every node has the agent and the plugin of that version.
func (r *rig) runsVersion(version string) {
	r.Helper()
	for _, n := range nodes.Nodes {
		if got := r.output(n.Command(cluster.BinDir+"/istio-pod-network", "--version")); !strings.Contains(got,
			version+"\n") {
			r.Errorf("the plugin on %s says %q, want %s", n.Name, got, version)
		}
		if got := metrics(n.Address()); !strings.Contains(got, fmt.Sprintf("version=%q", version)) {
			r.Errorf("the agent on %s is not of version %s", n.Name, version)
		}
	}
}

package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var counting sync.Mutex // of the rig's attempts and leaks

// churn makes and deletes mesh pods on a node, one after the other, until it is ended.
type churn struct {
	*rig
	node  *cluster.Node
	ended chan struct{}

	pods    int
	longest time.Duration // until a pod ran
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
		start := time.Now()
		c.create(pod)
		c.eventually(name+" runs", func() bool { return started(c.pod(name)) })
		c.longest = max(c.longest, time.Since(start))
		c.eventually(name+" is served by its sidecar", func() bool {
			return strings.Count(c.says(name, "app"), " answer sidecar-outbound ") >= enough
		})
		counting.Lock()
		c.noLeak(name)
		counting.Unlock()
		_ = nodes.Client.CoreV1().Pods(c.namespace).Delete(c.ctx, name, metav1.DeleteOptions{})
	}
}

// Agents are replaced by those of another version and back while mesh pods come and go: nothing leaks, and a pod that
// comes while no agent answers waits for the next one.
func TestUpgradeUnderChurn(t *testing.T) {
	r := newRig(t)
	r.uninstalled()
	r.installed()
	r.seen(r.appPod("plain"))
	var all []*churn
	var working sync.WaitGroup
	ended := make(chan struct{})
	for _, n := range nodes.Nodes {
		c := &churn{rig: r, node: n, ended: ended}
		all = append(all, c)
		working.Go(c.run)
	}
	stop := sync.OnceFunc(func() { close(ended); working.Wait() })
	defer stop()
	r.upgradeAndBack()
	r.runsVersion(version())
	stop()
	pods, longest := 0, time.Duration(0)
	for _, c := range all {
		pods, longest = pods+c.pods, max(longest, c.longest)
		if c.pods == 0 {
			t.Errorf("no pod has come on %s", c.node.Name)
		}
	}
	refused := 0
	for line := range strings.Lines(events(r.namespace)) {
		if strings.Contains(line, "FailedCreatePodSandBox") {
			refused++
			if !strings.Contains(line, "nobody listens on the socket") {
				t.Errorf("refused for another reason than an agent that is being replaced: %s", line)
			}
		}
	}
	r.note("%d pods, %d refused for a moment, the longest start %.1f s", pods, refused, longest.Seconds())
}

// upgradeAndBack replaces the agents by those of another version, and back.
func (r *rig) upgradeAndBack() {
	r.Helper()
	values := state
	state = nil
	r.output(helm("upgrade", release, chart(), "--wait", "--timeout=3m", "--set=image.tag="+next()))
	r.agentsReady()
	r.runsVersion(next())
	r.output(helm("rollback", release, "--wait", "--timeout=3m"))
	r.agentsReady()
	state = values
}

// runsVersion fails unless agent and plugin are of that version on every node.
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

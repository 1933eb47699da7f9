package e2e

import (
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/plugin/record"
)

// Without the plugin a mesh pod waits, and its app does not start; without the wait, which is the control, its app goes past the
// sidecar. The plugin that comes is chained at once, and the next pod has its rules.
func TestTooEarly(t *testing.T) {
	onEveryNode(t, func(r *rig) {
		r.uninstalled()
		hasty := r.meshPod("hasty")
		hasty.Spec.InitContainers = nil
		r.seen(hasty)
		r.create(r.meshPod("early"))
		r.eventually("the wait says what is missing", func() bool {
			return strings.Contains(r.says("early", "istio-validation"), "annotation "+record.KeyStatus+" is absent")
		})
		r.installed()
		r.create(r.meshPod("late"))
		r.throughSidecar("late")
		early := r.pod("early")
		for _, c := range early.Status.ContainerStatuses {
			if c.State.Waiting == nil || c.RestartCount > 0 {
				r.Errorf("container %s of a pod without rules has started: %+v", c.Name, c.State)
			}
		}
		if n := outside.reached(r.namespace, "early"); n > 0 {
			r.Errorf("the pod without rules has reached the peer %d times", n)
		}
	})
}

// The agents are away: a pod outside the mesh starts, a mesh pod is refused for the time being with a reason, and starts when
// they are back.
func TestAgentAway(t *testing.T) {
	onEveryNode(t, func(r *rig) {
		r.installed("agentTimeout=1s")
		r.stopAgents()
		r.create(r.meshPod("cart-0"))
		r.seen(r.appPod("plain"))
		r.eventually("the kubelet says why the mesh pod does not start", func() bool {
			events := events(r.namespace)
			return strings.Contains(events, "cart-0 FailedCreatePodSandBox") && strings.Contains(events, "nobody listens on the socket") &&
				strings.Contains(events, "istio-pod-network-install uninstall")
		})
		r.startAgents()
		r.throughSidecar("cart-0")
	})
}

// The sandbox is killed: the kubelet makes another, with rules of its own and a mark of its own.
func TestSandboxKilled(t *testing.T) {
	onEveryNode(t, func(r *rig) {
		r.installed()
		r.seen(r.appPod("plain"))
		r.create(r.meshPod("cart-0"))
		r.throughSidecar("cart-0")
		before := r.pod("cart-0")
		records, _ := record.Store{Dir: r.node.Path(stateDir)}.List()
		for _, rec := range records {
			if rec.PodUID == string(before.UID) { // the pause container is the sandbox; its only task is to be there
				r.output(r.node.Ctr("tasks", "kill", "--signal=KILL", rec.ContainerID))
			}
		}
		r.eventually("the pod is marked for another network namespace", func() bool {
			now := r.pod("cart-0").Annotations
			return now[record.KeyNetNS] != before.Annotations[record.KeyNetNS] && now[record.KeyStatus] == record.StatusInitialized
		})
		r.throughSidecar("cart-0")
	})
}

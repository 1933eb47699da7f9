package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/temporary"
	"github.com/istio-pod-network/controller/internal/excerpt"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
)

// Limits for one pod: the time of a request, the bytes of a log, and the bytes of a message that are shown. A runtime's
// text before the plugin's own words has about 250 characters.
const (
	askTimeout  = 10 * time.Second
	mostOfLog   = 1 << 20
	longestText = 600
)

// prove creates the pods of a node, lets them make their flows, and judges the results.
func (v *verifier) prove(ctx context.Context, number int, node string) Node {
	n := Node{Name: node, Verdict: Well}
	ctx, cancel := context.WithTimeoutCause(ctx, v.timeout, temporary.Late(v.timeout))
	defer cancel()
	if v.mesh != nil {
		return v.proveInjected(ctx, n, number)
	}
	name := func(what string) string { return fmt.Sprint(what, "-", number) }
	defer v.remove(ctx, name("peer"), name(meshName), name(plainName))
	v.progress.Step(node, "the peer starts")
	peer, ok := v.run(ctx, &n, "the peer", v.kit.peerPod(name("peer"), node), isReady)
	if !ok {
		return n
	}
	peers := addresses(peer)
	v.progress.Step(node, "a pod of the mesh and the control make their flows")
	var mesh, plain *corev1.Pod
	if !n.both(func(n *Node) (ok bool) {
		mesh, ok = v.run(ctx, n, "the pod of the mesh", v.kit.meshPod(name(meshName), node, peers), hasEnded)
		return ok
	}, func(n *Node) (ok bool) {
		plain, ok = v.run(ctx, n, "the control", v.kit.plainPod(name(plainName), node, peers), hasEnded)
		return ok
	}) {
		return n
	}
	v.progress.Step(node, "reading what they say")
	n.judge(v.tool, said{
		mesh:  v.log(ctx, mesh.Name, appContainer) + v.log(ctx, mesh.Name, sidecarContainer),
		plain: v.log(ctx, plain.Name, appContainer),
		peer:  v.log(ctx, peer.Name, appContainer),
	})
	v.exits(ctx, &n, mesh)
	return n
}

// exits adds how containers of the mesh pod have ended, if there is no other finding.
func (v *verifier) exits(ctx context.Context, n *Node, mesh *corev1.Pod) {
	for _, c := range mesh.Status.ContainerStatuses {
		if t := c.State.Terminated; t != nil && t.ExitCode != 0 && n.Verdict == Well {
			n.find(NotProven, fmt.Sprintf("container %s of the pod of the mesh has ended with %d: %s", c.Name, t.ExitCode,
				lastLine(v.log(ctx, mesh.Name, c.Name))), v.tool+" verify, once more")
		}
	}
}

// both runs two functions at the same time. Findings of the second one come last, and count as not proven.
func (n *Node) both(first, second func(*Node) bool) bool {
	var control Node
	var firstOK, secondOK bool
	var both sync.WaitGroup
	both.Go(func() { firstOK = first(n) })
	both.Go(func() { secondOK = second(&control) })
	both.Wait()
	for _, f := range control.Findings {
		n.find(NotProven, f.What, f.Next)
	}
	return firstOK && secondOK
}

// addresses returns a pod's addresses.
func addresses(pod *corev1.Pod) (all []string) {
	for _, ip := range pod.Status.PodIPs {
		all = append(all, ip.IP)
	}
	return all
}

// run creates a pod and returns it once holds returns true. If that does not happen, it finds out why.
func (v *verifier) run(ctx context.Context, n *Node, what string, pod *corev1.Pod, holds func(*corev1.Pod) bool) (
	last *corev1.Pod, ok bool) {
	pods := v.core.Pods(Namespace)
	last, err := pods.Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		n.find(NotProven, fmt.Sprintf("%s could not be made%s: %v", what,
			cluster.Needs("the verb create on pods", err), cmp.Or(context.Cause(ctx), err)), "see what refuses it")
		return nil, false
	}
	for {
		if !hasFailed(last) && holds(last) {
			return last, true
		}
		if hasEnded(last) || v.isStuck(ctx, last) || !cluster.Pause(ctx, v.pace.Poll) {
			v.explain(ctx, n, what, last)
			return last, false
		}
		now, err := pods.Get(ctx, last.Name, metav1.GetOptions{})
		switch {
		case err == nil:
			last = now
		case apierrors.IsNotFound(err), apierrors.IsForbidden(err):
			n.find(NotProven, fmt.Sprintf("%s: %v", what, cmp.Or(context.Cause(ctx), err)), v.tool+" verify, once more")
			return last, false
		}
	}
}

// ofSandbox are the reasons of the kubelet's Events if it cannot make a pod's network (pkg/kubelet/events/event.go).
var ofSandbox = []string{"FailedCreatePodSandBox", "NetworkNotReady"}

// stuckFor is how long the kubelet's failures to make a pod's network are tolerated. By then it has tried again, and
// the obstacle will not go away by itself.
const stuckFor = 20 * time.Second

// isStuck reports whether the kubelet has failed for that long to make a pod's network.
func (v *verifier) isStuck(ctx context.Context, pod *corev1.Pod) bool {
	if pod.Status.Phase != corev1.PodPending || len(pod.Status.PodIPs) > 0 {
		return false
	}
	events, err := v.core.Events(Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "involvedObject.uid=" + string(pod.UID)})
	if err != nil {
		return false // trouble reports it
	}
	first, last := map[string]time.Time{}, map[string]time.Time{}
	for _, e := range events.Items {
		if e.InvolvedObject.UID != pod.UID || !slices.Contains(ofSandbox, e.Reason) {
			continue
		}
		begin := cmp.Or(e.FirstTimestamp.Time, e.EventTime.Time)
		if known := first[e.Reason]; known.IsZero() || begin.Before(known) {
			first[e.Reason] = begin
		}
		if end := cmp.Or(e.LastTimestamp.Time, begin); end.After(last[e.Reason]) {
			last[e.Reason] = end
		}
	}
	return slices.ContainsFunc(ofSandbox, func(reason string) bool {
		return !first[reason].IsZero() && last[reason].Sub(first[reason]) >= stuckFor
	})
}

// isReady reports whether a pod is ready.
func isReady(pod *corev1.Pod) bool {
	return len(pod.Status.PodIPs) > 0 && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// hasEnded reports whether all containers of a pod have ended, with success or not.
func hasEnded(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// hasFailed reports whether a pod has failed before its containers could report results.
func hasFailed(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodFailed && (ofInit(pod) != nil || len(pod.Status.ContainerStatuses) == 0 ||
		slices.ContainsFunc(pod.Status.ContainerStatuses, func(c corev1.ContainerStatus) bool {
			return c.State.Terminated == nil
		}))
}

// ofInit returns the init container that has failed, nil if there is none.
func ofInit(pod *corev1.Pod) *corev1.ContainerStatus {
	for i, c := range pod.Status.InitContainerStatuses {
		if c.State.Terminated != nil && c.State.Terminated.ExitCode != 0 {
			return &pod.Status.InitContainerStatuses[i]
		}
	}
	return nil
}

// explain finds out why a pod does not start, from its status, its Events and its logs, and adds that.
func (v *verifier) explain(ctx context.Context, n *Node, what string, pod *corev1.Pod) {
	cause := context.Cause(ctx)
	var isLate temporary.Late
	if cause != nil && !errors.As(cause, &isLate) {
		n.find(NotProven, fmt.Sprintf("%s: %v", what, cause), v.tool+" verify, once more")
		return
	}
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
	defer cancel()
	verdict, why, next := v.trouble(asking, pod)
	if cause != nil {
		why = fmt.Sprintf("%v: %s", cause, why)
	}
	n.find(verdict, fmt.Sprintf("%s does not come up: %s", what, excerpt.Head(why, longestText)), next)
}

// trouble returns why a pod does not start, and what to do next. If pods cannot be scheduled or images cannot be
// pulled, that proves nothing about an installation.
func (v *verifier) trouble(ctx context.Context, pod *corev1.Pod) (verdict Verdict, why, next string) {
	status := v.tool + " status says how the plugin is installed there"
	if c := ofInit(pod); c != nil {
		return NotWell, fmt.Sprintf("its init container %s: %s", c.Name, lastLine(v.log(ctx, pod.Name, c.Name))), status
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status != corev1.ConditionTrue {
			return NotProven, c.Reason + ": " + c.Message, "make room on the node, or leave it out (--nodes)"
		}
	}
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if w := c.State.Waiting; w != nil && w.Message != "" {
			next := "see what the container lacks on that node: " + w.Reason
			if cluster.LacksImage(w.Reason) {
				next = "the image has to be pullable from every node (--image, and the chart's imagePullSecrets)"
			}
			return NotProven, fmt.Sprintf("its container %s: %s: %s", c.Name, w.Reason, w.Message), next
		}
		if t := c.State.Terminated; t != nil && t.ExitCode != 0 {
			return NotProven, fmt.Sprintf("its container %s has ended with %d: %s", c.Name, t.ExitCode,
				lastLine(v.log(ctx, pod.Name, c.Name))), status
		}
	}
	if v.mesh != nil {
		if why := v.sidecarTrouble(ctx, pod); why != "" {
			return NotProven, why, "look at istiod, which configures it: istioctl proxy-status, and the log of the sidecar"
		}
	}
	events, err := v.core.Events(Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: "involvedObject.uid=" + string(pod.UID)})
	if err != nil {
		return NotProven, fmt.Sprintf("its Events could not be read%s: %v",
			cluster.Needs("the verb list on events", err), err), status
	}
	why = strings.Join(strings.Fields(fmt.Sprintf("it is %s %s %s", pod.Status.Phase, pod.Status.Reason,
		pod.Status.Message)), " ")
	for _, e := range events.Items {
		if e.Type == corev1.EventTypeWarning && e.InvolvedObject.UID == pod.UID {
			why = e.Reason + ": " + e.Message
			if e.Reason == ofSandbox[0] {
				return NotWell, why, status
			}
		}
	}
	for _, c := range pod.Status.InitContainerStatuses {
		if c.State.Running != nil && c.Name != sidecarContainer { // a native sidecar keeps running
			return NotWell, fmt.Sprintf("its init container %s still waits: %s", c.Name,
				lastLine(v.log(ctx, pod.Name, c.Name))), status
		}
	}
	return NotProven, why, status
}

// logs reads the log of a container in the temporary namespace.
type logs func(ctx context.Context, pod, container string) ([]byte, error)

// logsOf returns the logs of a cluster.
func logsOf(core typedcore.CoreV1Interface) logs {
	return func(ctx context.Context, pod, container string) ([]byte, error) {
		most := int64(mostOfLog)
		return core.Pods(Namespace).GetLogs(pod, &corev1.PodLogOptions{Container: container, LimitBytes: &most}).DoRaw(ctx)
	}
}

// log returns a container's log, or why it could not be read. That text has no flows.
func (v *verifier) log(ctx context.Context, pod, container string) string {
	data, err := v.logs(ctx, pod, container)
	if err != nil {
		return fmt.Sprintf("its log could not be read%s: %v\n", cluster.Needs("the verb get on pods/log", err), err)
	}
	return strings.TrimRight(string(data), "\n") + "\n"
}

// lastLine returns the last line of a log.
func lastLine(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	return lines[len(lines)-1]
}

// remove deletes pods, so that there are never more than those of the nodes in progress. What it does not delete is
// removed with the namespace.
func (v *verifier) remove(ctx context.Context, names ...string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTimeout)
	defer cancel()
	for _, name := range names {
		_ = v.core.Pods(Namespace).Delete(ctx, name, metav1.DeleteOptions{})
	}
}

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/plugin/annotation"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// early creates a mesh pod on a node without the plugin. Its wait waits, and its app does not start. The control is a
// pod without the wait, whose app bypasses the sidecar.
func (r *rig) early(pod *corev1.Pod) {
	r.Helper()
	r.uninstalled()
	hasty := r.meshPod("hasty")
	hasty.Spec.InitContainers = nil
	r.seen(hasty)
	r.create(pod)
	r.eventually("the wait says what is missing", func() bool {
		return strings.Contains(r.says(pod.Name, "istio-validation"), "annotation "+annotation.Status+" is absent")
	})
}

// stillWaits fails if the app of a pod without rules has started, or has reached the peer.
func (r *rig) stillWaits(name string) {
	r.Helper()
	for _, c := range r.pod(name).Status.ContainerStatuses {
		if c.State.Waiting == nil || c.RestartCount > 0 {
			r.Errorf("container %s of a pod without rules has started: %+v", c.Name, c.State)
		}
	}
	if n := outside.reached(r.namespace, name); n > 0 {
		r.Errorf("the pod without rules has reached the peer %d times", n)
	}
}

// A pod that started before the plugin was installed is repaired afterwards: it gets its rules and its mark, and
// continues without a restart. The same holds for pods with a user namespace, and for pods that only need the mark
// not-required.
func TestRepairApply(t *testing.T) {
	onEveryNode(t, func(r *rig) {
		names := []string{"early", "spared"}
		spared := r.meshPod("spared")
		spared.Labels = map[string]string{"sidecar.istio.io/inject": "false"}
		r.early(r.meshPod("early"))
		r.create(spared)
		if r.node == nodes.Nodes[0] {
			pod := inUserNamespace(r.meshPod("user-namespace"))
			r.create(pod)
			names = append(names, pod.Name)
		}
		for _, name := range names {
			r.eventually(name+" waits", func() bool { return strings.Contains(r.says(name, "istio-validation"), "is absent") })
		}
		r.stillWaits("early")
		r.installed()
		for _, name := range names {
			if name == "spared" {
				r.running(name)
				continue
			}
			r.throughSidecar(name)
			r.marked(name)
			r.answersFrom("sidecar-inbound", r.pod(name), 8080)
		}
		if a := r.pod("spared").Annotations; a[annotation.Status] != "not-required" {
			r.Errorf("the pod that the mesh spares is marked %v", a)
		}
		for _, name := range names {
			for _, c := range r.pod(name).Status.InitContainerStatuses {
				if c.RestartCount > 0 {
					r.Errorf("container %s of %s was restarted %d times", c.Name, name, c.RestartCount)
				}
			}
		}
		hasty := r.pod("hasty") // it does not wait, so it is not repaired
		if _, marked := hasty.Annotations[annotation.Status]; marked {
			r.Errorf("a pod that has been running without us was touched: %v", hasty.Annotations)
		}
		r.eventually("the repairs are counted", func() bool {
			return strings.Contains(metrics(r.node.Address()),
				fmt.Sprintf("istio_pod_network_pod_repairs_total{result=\"applied\"} %d\n", len(names)))
		})
		r.note("%d repaired", len(names))
		r.create(r.meshPod("late"))
		r.throughSidecar("late")
	})
}

// A sandbox that is created again while the plugin is not chained has a stale record and a stale mark. The pod waits,
// and is repaired too.
func TestRepairStaleRecord(t *testing.T) {
	r := newRig(t)
	r.installed("agent.extraArgs={--stuck-after=5s}")
	r.seen(r.appPod("plain"))
	r.create(r.meshPod("cart-0"))
	r.throughSidecar("cart-0")
	before := r.pod("cart-0").Annotations[annotation.NetNS]
	r.stopAgents()
	r.unchain()
	r.killSandbox("cart-0")
	r.eventually("the wait does not believe the old mark", func() bool {
		return strings.Contains(r.says("cart-0", "istio-validation"), "pasted or stale")
	})
	r.startAgents()
	r.eventually("the pod is marked for its new network namespace",
		func() bool { return r.pod("cart-0").Annotations[annotation.NetNS] != before })
	r.throughSidecar("cart-0")
}

// With repair: delete, the pod's controller creates a new pod. A pod without a controller is left, and an Event says
// why.
func TestRepairDelete(t *testing.T) {
	r := newRig(t)
	r.early(r.meshPod("bare"))
	pod := r.meshPod("cart")
	pod.Labels = map[string]string{"app": "cart"}
	one := int32(1)
	_, err := nodes.Client.AppsV1().ReplicaSets(r.namespace).Create(r.ctx, &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Name: "cart"},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: &one, Selector: &metav1.LabelSelector{MatchLabels: pod.Labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels, Annotations: pod.Annotations},
				Spec: pod.Spec},
		},
	}, metav1.CreateOptions{})
	must(t, err)
	first := ""
	r.eventually("the first pod waits", func() bool {
		first = r.onlyPod("app=cart")
		return first != "" && strings.Contains(r.says(first, "istio-validation"), "is absent")
	})
	r.installed("repair=delete")
	second := r.madeAgain("app=cart", first)
	r.running(second)
	for _, want := range []string{first + " DeletedForRepair", "bare RepairFailed"} {
		r.eventually("an Event "+want, func() bool { return strings.Contains(events(r.namespace), want) })
	}
	r.stillWaits("bare")
	if log := r.says(second, "app"); strings.Contains(log, "answer peer") {
		t.Errorf("the pod that was made again went past its sidecar:\n%s", log)
	}
}

// madeAgain waits until a pod is marked that a controller has made in place of the first one, and returns its name. If
// the runtime reads its configuration later than the agent has written it, the agent deletes the second one, too.
func (r *rig) madeAgain(selector, first string) (name string) {
	r.Helper()
	r.eventually("the pod was made again, and is marked", func() bool {
		if name = r.onlyPod(selector); name == "" || name == first {
			return false
		}
		pod, err := nodes.Client.CoreV1().Pods(r.namespace).Get(r.ctx, name, metav1.GetOptions{})
		return err == nil && pod.Annotations[annotation.Status] == annotation.Initialized
	})
	r.marked(name)
	return name
}

// onlyPod returns the name of the pod with that label that is not being deleted, or "".
func (r *rig) onlyPod(selector string) string {
	r.Helper()
	list, err := nodes.Client.CoreV1().Pods(r.namespace).List(r.ctx, metav1.ListOptions{LabelSelector: selector})
	must(r, err)
	for _, pod := range list.Items {
		if pod.DeletionTimestamp == nil {
			return pod.Name
		}
	}
	return ""
}

// With repair: off, the pod stays as it is, and an Event says why.
func TestRepairOff(t *testing.T) {
	r := newRig(t)
	r.early(r.meshPod("early"))
	r.installed("repair=off")
	r.eventually("an Event says why", func() bool {
		return strings.Contains(events(r.namespace),
			"early CameTooEarly The pod's network was made without istio-pod-network")
	})
	r.create(r.meshPod("late"))
	r.throughSidecar("late")
	r.stillWaits("early")
}

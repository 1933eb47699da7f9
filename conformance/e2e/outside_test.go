package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/plugin/annotation"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A pod outside the mesh is not touched. It starts without the product, with it, and without agents, and its packet
// filter is empty.
func TestOutsideTheMesh(t *testing.T) {
	r := newRig(t)
	r.uninstalled()
	without := r.startTimes("without")
	r.installed()
	with := r.startTimes("with")
	r.stopAgents()
	away := r.startTimes("away")
	r.note("start: median %d ms without us, %d ms with us, %d ms while the agent is away", without, with, away)
}

// startTimes starts pods one after the other, and returns the median time until their containers run, in milliseconds.
func (r *rig) startTimes(name string) int64 {
	r.Helper()
	const pods = 7
	var times []int64
	for i := range pods {
		pod := r.appPod(fmt.Sprint(name, "-", i))
		start := time.Now()
		r.create(pod)
		r.eventually(pod.Name+" runs", func() bool { return started(r.pod(pod.Name)) })
		times = append(times, time.Since(start).Milliseconds())
		if rules := r.ruleset(pod.Name); rules != "" {
			r.Errorf("rules in %s, a pod outside the mesh:\n%s", pod.Name, rules)
		}
		if marked := r.pod(pod.Name).Annotations; len(marked) > 0 {
			r.Errorf("%s, a pod outside the mesh, was touched: %v", pod.Name, marked)
		}
		r.clear(r.namespace) // so that every pod has the same resources
	}
	slices.Sort(times)
	return times[pods/2]
}

const initialize = "istio-pod-network-controller/initialize"

// notRequired checks a pod that has mesh annotations but is not in the mesh: it is marked not-required, its wait ends,
// and it has no rules.
func (r *rig) notRequired(name string) {
	r.Helper()
	r.hears(name, target4, "peer")
	if a := r.pod(name).Annotations; a[annotation.Status] != annotation.NotRequired {
		r.Errorf("%s is not marked not-required: %v", name, a)
	}
	if rules := r.ruleset(name); rules != "" {
		r.Errorf("rules in %s, which has opted out:\n%s", name, rules)
	}
}

// With selection: annotated, as in 2018, a pod is redirected if it opts in, or else if its namespace does.
func TestAnnotatedSelection(t *testing.T) {
	r := newRig(t)
	r.installed("selection=annotated")
	home := r.namespace
	optedIn := r.newNamespace(enforcing("restricted"), map[string]string{initialize: "true"})
	r.seen(r.appPod("plain"))
	for _, c := range []struct{ name, namespace, pod string }{
		{"by-itself", home, "true"}, {"by-its-namespace", optedIn, ""}, {"silent", home, ""},
		{"against-its-namespace", optedIn, "false"},
	} {
		r.namespace = c.namespace
		pod := r.meshPod(c.name)
		if c.pod != "" {
			pod.Annotations[initialize] = c.pod
		}
		r.create(pod)
		if c.pod == "true" || c.pod == "" && c.namespace == optedIn {
			r.throughSidecar(c.name)
			r.marked(c.name)
		} else {
			r.notRequired(c.name)
		}
	}
	r.namespace = home
}

// The plugin works with a pod of the 2018 template: its volume, and an init container istio-init with the command line
// of that program.
func TestTemplateOf2018(t *testing.T) {
	r := newRig(t)
	r.installed("selection=annotated")
	r.seen(r.appPod("plain"))
	pod := r.meshPod("cart-0")
	delete(pod.Annotations, "sidecar.istio.io/status")
	pod.Annotations[initialize] = "true"
	pod.Spec.Volumes[0].Name, pod.Spec.Volumes[0].DownwardAPI.Items[0].Path = "podinfo", "pod_annotations"
	pod.Spec.InitContainers[0] = corev1.Container{
		Name: "istio-init", Image: pluginImage(), ImagePullPolicy: corev1.PullNever, SecurityContext: restricted(appUser),
		Args: []string{
			"init", "--file", "/etc/podinfo/pod_annotations", "--annotation-key", annotation.Status, "--annotation-value",
			annotation.Initialized,
			"--timeout", "300", "--delay", "10",
		},
		VolumeMounts: []corev1.VolumeMount{{Name: "podinfo", MountPath: "/etc/podinfo"}},
	}
	r.create(pod)
	r.throughSidecar("cart-0")
	r.marked("cart-0")
	if log := r.says("cart-0", "istio-init"); !strings.Contains(log, "ready after") {
		t.Errorf("the wait says %q", log)
	}
}

// With the default selection, injected pods are redirected, unless the pod or the operator excludes them.
func TestOptOut(t *testing.T) {
	r := newRig(t)
	r.installed("excludeNamespaces={kube-system,legacy-*}")
	r.seen(r.appPod("plain"))
	label := r.meshPod("by-label")
	label.Labels = map[string]string{"sidecar.istio.io/inject": "false"}
	annotated := r.meshPod("by-annotation")
	annotated.Annotations[initialize] = "false"
	for _, pod := range []*corev1.Pod{label, annotated} {
		r.create(pod)
		r.notRequired(pod.Name)
	}
	r.create(r.meshPod("in-the-mesh"))
	r.throughSidecar("in-the-mesh")

	home := r.namespace
	r.namespace = r.namedNamespace(fmt.Sprint("legacy-", rigs), enforcing("restricted"), nil)
	r.create(r.meshPod("by-namespace"))
	r.notRequired("by-namespace")
	r.namespace = home
}

// Nodes with the startup taint run no pod before their agent is ready.
func TestStartupTaint(t *testing.T) {
	r := newRig(t)
	r.uninstalled()
	const key = "istio-pod-network-controller/agent-not-ready"
	for _, n := range nodes.Nodes {
		t.Cleanup(func() { _ = kubectl("taint", "node", n.Name, key+"-").Run() })
		r.output(kubectl("taint", "node", n.Name, key+"=:NoSchedule"))
	}
	pod := r.meshPod("cart-0")
	r.create(pod)
	r.eventually("no node takes the pod", func() bool {
		for _, c := range r.pod("cart-0").Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonUnschedulable {
				return true
			}
		}
		return false
	})
	r.installed("startupTaint.enabled=true")
	r.throughSidecar("cart-0")
	r.seen(r.appPod("plain"))
	r.eventually("no node has the taint", func() bool {
		list, err := nodes.Client.CoreV1().Nodes().List(r.ctx, metav1.ListOptions{})
		must(t, err)
		return !slices.ContainsFunc(list.Items, func(n corev1.Node) bool {
			return slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == key })
		})
	})
}

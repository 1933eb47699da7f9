package e2e

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/istio-pod-network/controller/conformance/internal/mesh"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The revision that a namespace moves to, the default revision, and the label that names the revision.
const (
	canary     = "canary"
	byDefault  = "default"
	revisionOf = "istio.io/rev"
)

// stays is how many seconds a terminating pod still serves, so that every sidecar first learns that it terminates.
const stays = 30

// revision installs another revision of the same istiod, with values files.
func (m *serviceMesh) revision(r *rig, name string, files ...string) {
	r.Helper()
	r.Cleanup(func() { must(r, m.helm.Uninstall("istiod-"+name, mesh.Namespace)) })
	must(r, m.helm.Install("istiod-"+name, "istiod", mesh.Namespace, files, "revision="+name,
		"nodeSelector.kubernetes\\.io/hostname="+nodes.Nodes[0].Name,
		"meshConfig.outboundTrafficPolicy.mode=REGISTRY_ONLY"))
}

// revisions tests that no call is lost when istiod is killed, or when a namespace moves to a second revision and back.
// A pod that stays in the first revision calls the pods that move all the time. The calls that a plain restart loses
// are reported separately, because they depend on Istio and the app.
func (m *serviceMesh) revisions(r *rig) {
	labels := enforcing("restricted")
	labels[injectedFrom] = "enabled"
	r.namespace = r.newNamespace(labels, nil)
	r.Cleanup(func() { // their grace period is long
		r.output(kubectlIn(r.namespace, "delete", "pods", "--all", "--grace-period=1", "--wait=false"))
	})
	r.apply(r.namespace, string(asJSON(m.moving(r))))
	r.service("cart", nil)
	r.rolledOut("deployment/cart")
	m.revision(r, canary, ourWait())
	front, err := nodes.Client.CoreV1().Pods(m.namespace).Get(r.ctx, "front", metav1.GetOptions{})
	must(r, err)
	during := func(what string, do func()) {
		for _, to := range []string{"http://cart." + r.namespace + "/", "tcp://cart." + r.namespace + ":90"} {
			r.eventually("front calls "+to, func() bool { return answered(callBy(front.Status.PodIP, to)) })
			end := r.traffic(front.Status.PodIP, to)
			defer func() {
				calls, lost := end()
				r.note("%s: %d of %d calls of %s lost", what, len(lost), calls, to[:strings.Index(to, ":")])
				if len(lost) > 0 {
					r.Errorf("%s: lost: %q", what, lost)
				}
			}()
		}
		do()
	}
	during("istiod killed", func() {
		r.output(kubectlIn(mesh.Namespace, "delete", "pods", "--selector="+revisionOf+"="+byDefault, "--grace-period=0",
			"--force"))
		r.output(kubectlIn(mesh.Namespace, "rollout", "status", "deployment", "istiod", waits()))
	})
	during("restarted", func() { m.restarted(r, front, byDefault) })
	for _, to := range []string{canary, byDefault} {
		change := []string{injectedFrom + "-", revisionOf + "=" + canary}
		if to == byDefault {
			change = []string{revisionOf + "-", injectedFrom + "=enabled"}
		}
		during("moved to "+to, func() {
			r.output(kubectl(append([]string{"label", "--overwrite", "namespace", r.namespace}, change...)...))
			m.restarted(r, front, to)
		})
	}
}

// moving returns a Deployment of an app. A terminating pod serves until no sidecar calls it any more.
func (m *serviceMesh) moving(r *rig) *appsv1.Deployment {
	r.Helper()
	template, grace := m.template(r, "cart"), int64(2*stays)
	template.Spec.TerminationGracePeriodSeconds = &grace
	template.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{
		Sleep: &corev1.SleepAction{Seconds: stays}}}
	return &appsv1.Deployment{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, ObjectMeta: metav1.ObjectMeta{Name: "cart"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: template.Labels}, Template: template,
		},
	}
}

// restarted restarts the app when its pods are injected by a revision, and waits until all calls reach the new pod. The
// new pod must be in the mesh, and reach the pod that has not moved.
func (m *serviceMesh) restarted(r *rig, front *corev1.Pod, revision string) {
	r.Helper()
	m.injects(r, revision)
	r.output(kubectlIn(r.namespace, "rollout", "restart", "deployment", "cart"))
	r.rolledOut("deployment/cart")
	name := r.onlyPod("app=cart")
	r.eventually("twenty calls in a row go to "+name, func() bool {
		for range 20 {
			if callBy(front.Status.PodIP, "http://cart."+r.namespace+"/").page().Name != r.namespace+"/"+name {
				return false
			}
		}
		return true
	})
	if by := r.pod(name).Annotations[revisionOf]; by != revision {
		r.Errorf("%s was injected by %q, not by %q", name, by, revision)
	}
	m.speaks(r, name)
	r.marked(name)
	m.keeps(r, name)
}

// rolledOut waits until the rollout of a workload, KIND/NAME, is complete.
func (r *rig) rolledOut(name string) {
	r.Helper()
	r.output(kubectlIn(r.namespace, "rollout", "status", name, waits()))
}

// traffic makes the app of a pod call repeatedly until end is called. end returns the number of calls, and the answers
// to those that failed.
func (r *rig) traffic(address, to string) (end func() (int, []string)) {
	r.Helper()
	var (
		made atomic.Int64
		lost []string
	)
	stop := r.while(func(int) {
		if a := callBy(address, to); !answered(a) {
			lost = append(lost, fmt.Sprintf("%+v", a))
		}
		made.Add(1)
		time.Sleep(10 * time.Millisecond)
	})
	return func() (int, []string) {
		r.eventually("there were many calls of "+to, func() bool { return made.Load() >= enough })
		stop()
		return int(made.Load()), lost
	}
}

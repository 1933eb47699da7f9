package e2e

import (
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/plugin/annotation"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// early tests a pod that starts before the plugin is chained. It waits, is repaired when the agent is back, and then
// uses mTLS, without a restart. The control is a pod without the wait that starts at the same time: its app bypasses
// the sidecar.
func (m *serviceMesh) early(r *rig) {
	r.stopAgents()
	r.unchain()
	home, hasty := r.namespace, r.meshPod("hasty")
	hasty.Spec.InitContainers = nil
	r.create(hasty)
	r.namespace = m.namespace
	r.service("early", nil)
	r.guests(m.app(r, "early", "early", "v1"))
	r.eventually("the detector sees hasty", func() bool { return outside.reached(home, "hasty") >= enough })
	r.control += outside.reached(home, "hasty")
	r.eventually("the wait says what is missing", func() bool {
		return strings.Contains(r.says("early", "istio-validation"), "annotation "+annotation.Status+" is absent")
	})
	r.stillWaits("early")
	r.startAgents()
	pod := r.ready("early")
	r.marked("early")
	for _, c := range pod.Status.InitContainerStatuses {
		if c.RestartCount > 0 {
			r.Errorf("container %s of early was restarted %d times", c.Name, c.RestartCount)
		}
	}
	m.speaks(r, "early")
	m.hearsFront(r, "http://early/")
	m.hearsFront(r, "tcp://early:90")
	m.keepsPlaintextOut(r, "early")
	m.keeps(r, "early")
}

// replaced tests repair: delete. The agent deletes a pod that started before the plugin was chained, before its app has
// started. The pod that the controller creates instead uses mTLS.
func (m *serviceMesh) replaced(r *rig) {
	r.installed(append(slices.Clone(state), "repair=delete")...)
	r.stopAgents()
	r.unchain()
	home, hasty := r.namespace, r.meshPod("hasty")
	hasty.Spec.InitContainers = nil
	r.create(hasty)
	r.namespace = m.namespace
	r.service("replaced", nil)
	template, one := m.template(r, "replaced"), int32(1)
	r.apply(m.namespace, string(asJSON(&appsv1.ReplicaSet{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "ReplicaSet"},
		ObjectMeta: metav1.ObjectMeta{Name: "replaced"},
		Spec: appsv1.ReplicaSetSpec{Replicas: &one, Template: template,
			Selector: &metav1.LabelSelector{MatchLabels: template.Labels}},
	})))
	first := ""
	r.eventually("the wait says what is missing", func() bool {
		first = r.onlyPod("app=replaced")
		return first != "" && strings.Contains(r.says(first, "istio-validation"), annotation.Status+" is absent")
	})
	r.eventually("the detector sees hasty", func() bool { return outside.reached(home, "hasty") >= enough })
	r.control += outside.reached(home, "hasty")
	r.stillWaits(first)
	r.clear(home) // hasty has no controller, and the agent is not ready while it bypasses the mesh
	r.startAgents()
	second := r.madeAgain("app=replaced", first)
	r.eventually("an Event tells of it", func() bool {
		return strings.Contains(events(m.namespace), first+" DeletedForRepair")
	})
	r.ready(second)
	m.speaks(r, second)
	for _, to := range []string{"http://replaced/", "grpc://replaced:81", "tcp://replaced:90"} {
		m.hearsFront(r, to)
	}
	m.keepsPlaintextOut(r, second)
	m.keeps(r, second)
	if n := outside.reached(m.namespace, first); n > 0 {
		r.Errorf("the pod that was deleted has reached the peer %d times", n)
	}
}

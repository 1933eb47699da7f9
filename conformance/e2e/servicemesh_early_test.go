package e2e

import (
	"strings"

	"github.com/istio-pod-network/controller/plugin/annotation"
)

// A pod that has come before the plugin was chained waits, is repaired when the agent is back, and then speaks mTLS,
// without a restart. The control is a pod without the wait that comes at the same time: its app goes past the sidecar.
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

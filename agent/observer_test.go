package agent

import (
	"testing"

	"github.com/istio-pod-network/controller/agent/agenttest"
	"github.com/istio-pod-network/controller/agent/mark"
	"github.com/istio-pod-network/controller/agent/patrol"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kuberecord "k8s.io/client-go/tools/record"
)

// A mark that is refused again and again causes one Event on the pod, and another one only after a successful mark.
func TestRefusedMarkIsToldOnce(t *testing.T) {
	pod := agenttest.MeshPod("cart")
	pods, _ := agenttest.Pods(t, func(string) {}, pod)
	events := kuberecord.NewFakeRecorder(100)
	o := &observer{metrics: newMetrics(), pods: pods, warner: patrol.NewWarner(events, agenttest.Quiet()),
		log: agenttest.Quiet()}
	r := agenttest.RecordFor(pod, "1/1")
	refused := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "cart", nil)
	for _, came := range []mark.Result{mark.Marked, mark.AlreadyOn} {
		for range 3 {
			o.attempted(r, mark.Failed, refused)
		}
		if n := len(events.Events); n != 1 {
			t.Errorf("%d Events of one refusal", n)
		}
		<-events.Events
		o.attempted(r, came, nil)
	}
}

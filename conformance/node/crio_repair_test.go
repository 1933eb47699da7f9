package node

import (
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/crio"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A pod whose network was made before the plugin was installed waits. The agent runs the plugin for it with what libcni
// has cached, which with the oldest libcni has no network namespace and no annotations. CRI-O never calls the plugin
// for that pod. Its record is removed with the pod.
func TestCRIORepair(t *testing.T) {
	for _, release := range crio.Releases {
		t.Run(release.String(), func(t *testing.T) {
			r := onCRIO(t, release)
			r.write("net.d/10-pods.conflist", r.bridge("10-pods.conflist", "1.0.0"))
			r.eventually("there is a network", func() bool { return r.cri.Network().Name == "pods" })
			pod := r.podOf("cart", meshAnnotations())
			pod.Spec.InitContainers = []corev1.Container{{Name: "istio-validation", Image: "wait"}}
			pod = r.create(pod)
			s := r.start(pod)
			now := metav1.Now()
			r.status(pod, corev1.PodStatus{StartTime: &now, InitContainerStatuses: []corev1.ContainerStatus{{
				Name:  "istio-validation",
				State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}}}})
			r.startAgent(append(r.flags, "--repair=apply")...)
			r.ready()
			r.eventually("the pod is repaired", func() bool {
				rec, err := r.store.Get(s.ID, "eth0")
				return err == nil && markOn(r.pod("cart")) == want(rec)
			})
			if !strings.Contains(r.rules(s), "table ip "+plugin) {
				t.Errorf("its rules are\n%s", r.rules(s))
			}
			r.stop(s)
			r.wantCalled(plugin, s, "")
			r.nothing()
		})
	}
}

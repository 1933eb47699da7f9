package e2e

import (
	"github.com/istio-pod-network/controller/conformance/internal/cluster"
)

// openShiftMesh tests a real mesh on a node like OpenShift's: istiod with Istio's own profile openshift, and Envoy
// sidecars, in pods of users who may only edit their project. Multus calls the plugin for the network that the injector
// adds, and the constraints for all users admit the pods.
func openShiftMesh(whole *rig) {
	whole.installedOnOpenShift()
	whole.constrained()
	project := *whole // it has its own namespace and user, but counts for the same scenario
	r := &project
	r.namespace = r.newNamespace(enforcing("restricted"), allocated)
	m := newMesh(r, []*cluster.Node{r.node}, allocated, "global.platform=openshift")
	r.developed()
	plain := r.appPod("plain")
	plain.Labels = map[string]string{"sidecar.istio.io/inject": "false"}
	r.create(plain)
	apps := []string{"front", "reviews"}
	for _, name := range apps {
		r.create(m.app(r, name, name, "v1"))
	}
	r.service("reviews", nil)
	for _, name := range apps {
		r.ready(name)
		r.marked(name)
		r.admitted(name, "restricted-v2", firstUser, lastUser)
		if named := r.pod(name).Annotations[networks]; named != network {
			r.Errorf("%s names the networks %q, want %q", name, named, network)
		}
	}
	for _, to := range []string{"http://reviews/", "grpc://reviews:81", "tcp://reviews:90"} {
		m.hearsFront(r, to)
	}
	whole.toolOnOpenShift(r.namespace, apps...)
	m.keepsPlaintextOut(r, "reviews")
	m.keeps(r, apps...)
	r.eventually("the detector sees the app outside the mesh", func() bool {
		r.control = outside.reached(r.namespace, "plain")
		return r.control >= enough
	})
}

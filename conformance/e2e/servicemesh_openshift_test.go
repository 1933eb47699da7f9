package e2e

import (
	"github.com/istio-pod-network/controller/conformance/internal/cluster"
)

// A real mesh on OpenShift's layout: istiod with Istio's own profile of the platform, and sidecars that are Envoy, in
// pods of people who may only edit their project. Multus calls the plugin by the network that the injector names, and
// the constraints that everybody may use admit the pods.
func openShiftMesh(whole *rig) {
	whole.installedOnOpenShift()
	whole.constrained()
	project := *whole // whose namespace and person are its own; what it counts is the scenario's
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

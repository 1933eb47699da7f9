package e2e

import (
	"maps"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// refusedDial is what an app says of target4 if nobody listens where its connection is redirected to.
var refusedDial = " error dial tcp " + strings.TrimPrefix(target4, "tcp:") + ": connect: connection refused\n"

// inits tests init containers that need the network. One runs after a native sidecar, and reaches services of the mesh.
// One runs before the sidecar, and reaches the outside with a group of its own, as in docs/injection.md. Without the
// group its connections are refused, and nothing leaves the pod.
func (m *serviceMesh) inits(r *rig) {
	r.namespace = m.namespace
	recipe, reviews := r.recipe(), "tcp:reviews:90"
	migrate := recipe.Spec.InitContainers[0]
	native := m.app(r, "by-native", "by-native", "v1")
	native.Annotations["sidecar.istio.io/nativeSidecar"] = "true"
	mesh := corev1.Container{Name: migrate.Name, SecurityContext: restricted(appUser)}
	r.before(native, mesh, reviews)
	r.guests(native)
	for _, name := range []string{"by-group", "without"} {
		pod := m.app(r, name, name, "v1")
		pod.Annotations["sidecar.istio.io/nativeSidecar"] = "false"
		maps.Copy(pod.Annotations, recipe.Annotations)
		if name == "without" {
			migrate.SecurityContext = restricted(*migrate.SecurityContext.RunAsUser)
		}
		r.before(pod, migrate, target4, target6)
		r.guests(pod)
	}
	for name, targets := range map[string][]string{"by-native": {reviews + " answer app "},
		"by-group": {target4 + " answer peer\n", target6 + " answer peer\n"}} {
		r.ready(name)
		for _, want := range targets {
			if log := r.says(name, migrate.Name); !strings.Contains(log, want) {
				r.Errorf("%s of %s does not say %q:\n%s", migrate.Name, name, want, log)
			}
		}
		m.speaks(r, name)
		r.marked(name)
		m.keeps(r, name)
	}
	r.control += outside.reached(m.namespace, "by-group/"+migrate.Name)
	r.eventually("the connections of an init container without the group are refused", func() bool {
		return strings.Count(r.says("without", migrate.Name), target4+refusedDial) >= enough
	})
	for _, name := range []string{"without", "by-native"} {
		if n := outside.reached(m.namespace, name+"/"+migrate.Name); n > 0 {
			r.Errorf("%s of %s has reached the peer %d times", migrate.Name, name, n)
		}
	}
}

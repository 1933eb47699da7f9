package e2e

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// With a sidecar as the injector makes it for TPROXY, which is root with group 1337 and NET_ADMIN and needs a namespace
// that admits that, the pod calls and is called by mTLS; and none of the ways around a sidecar gets through.
func (m *serviceMesh) transparent(r *rig) {
	m.injectedBy(r, byDefault, "privileged")
	pod := m.app(r, "transparent", "transparent", "v1")
	pod.Annotations["sidecar.istio.io/interceptionMode"] = "TPROXY"
	r.service("transparent", nil)
	r.create(attacked(pod))
	pod = r.ready("transparent")
	with := container(pod, "istio-proxy").SecurityContext
	if *with.RunAsUser != 0 || *with.RunAsGroup != proxyUser ||
		!slices.Equal(with.Capabilities.Add, []corev1.Capability{"NET_ADMIN"}) {
		r.Errorf("the sidecar runs as %+v", with)
	}
	if rules := r.ruleset("transparent"); !strings.Contains(rules, "tproxy") {
		r.Errorf("no TPROXY rule in\n%s", rules)
	}
	r.marked("transparent")
	m.speaks(r, "transparent")
	for _, to := range []string{"http://transparent." + r.namespace + "/", "grpc://transparent." + r.namespace + ":81",
		"tcp://transparent." + r.namespace + ":90"} {
		m.hearsFront(r, to)
	}
	m.keepsPlaintextOut(r, "transparent")
	r.notEscaped("transparent")
	m.keeps(r, "transparent")
}

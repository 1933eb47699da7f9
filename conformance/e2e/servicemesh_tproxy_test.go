package e2e

import (
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/conformance/internal/mesh"
	corev1 "k8s.io/api/core/v1"
)

// ownUser are values of istiod with a template for a TPROXY sidecar that does not run as root. By default the injector
// sets root, whatever the pod says (adjustInitContainerUser in istio/istio pkg/kube/inject/webhook.go). The template
// also allows privilege escalation: with no_new_privs, which the injector sets, file capabilities have no effect.
const ownUser = `sidecarInjectorWebhook:
  templates:
    own-user: |
      spec:
        containers:
        - name: istio-proxy
          securityContext: {runAsUser: 1337, runAsGroup: 1337, runAsNonRoot: true, allowPrivilegeEscalation: true}
`

// transparent tests TPROXY sidecars. They need NET_ADMIN, and a namespace that admits it. The injector makes the
// sidecar run as root with group 1337. With our template it runs as user 1337, and Envoy gets the capability from its
// file. In both cases the pod calls and is called by mTLS, and no attempt gets around the sidecar.
func (m *serviceMesh) transparent(r *rig) {
	m.injectedBy(r, byDefault, "privileged")
	sidecars := map[string]int64{"transparent": 0}
	capable, err := mesh.CapableSidecar(isolated.BinDir(), r.TempDir())
	must(r, err)
	if capable != "" {
		sidecars["own-user"] = proxyUser
		must(r, r.node.Import(capable))
	}
	for name, user := range sidecars {
		pod := m.app(r, name, name, "v1")
		pod.Annotations["sidecar.istio.io/interceptionMode"] = "TPROXY"
		if user != 0 {
			pod.Annotations["sidecar.istio.io/proxyImage"] = mesh.CapableImage
			pod.Annotations["sidecar.istio.io/nativeSidecar"] = "false"
			pod.Annotations["inject.istio.io/templates"] = "sidecar,istio-pod-network-wait,own-user"
		}
		r.service(name, nil)
		r.create(attacked(pod))
	}
	for name, user := range sidecars {
		m.isTransparent(r, name, user)
	}
}

// isTransparent fails unless the pod's sidecar runs as that user, and the pod's traffic goes through it by TPROXY only.
func (m *serviceMesh) isTransparent(r *rig, name string, user int64) {
	r.Helper()
	pod := r.ready(name)
	with := container(pod, "istio-proxy").SecurityContext
	if *with.RunAsUser != user || *with.RunAsGroup != proxyUser ||
		!slices.Equal(with.Capabilities.Add, []corev1.Capability{"NET_ADMIN"}) {
		r.Errorf("the sidecar of %s runs as %+v", name, with)
	}
	if rules := r.ruleset(name); !strings.Contains(rules, "tproxy") {
		r.Errorf("no TPROXY rule of %s in\n%s", name, rules)
	}
	r.marked(name)
	m.speaks(r, name)
	for _, to := range []string{"http://" + name + "." + r.namespace + "/", "grpc://" + name + "." + r.namespace + ":81",
		"tcp://" + name + "." + r.namespace + ":90"} {
		m.hearsFront(r, to)
	}
	m.keepsPlaintextOut(r, name)
	r.notEscaped(name)
	m.keeps(r, name)
}

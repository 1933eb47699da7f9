package e2e

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
)

// mutualTLS tests that two services use mTLS and check each other's identity. Connections without a certificate are
// refused in both families.
func (m *serviceMesh) mutualTLS(r *rig) {
	r.namespace = m.namespace
	a := r.calls("front", "http://reviews/", "answers", answered)
	for _, want := range []string{
		"By=spiffe://cluster.local/ns/" + m.namespace + "/sa/reviews;",
		"URI=spiffe://cluster.local/ns/" + m.namespace + "/sa/front",
	} {
		if !strings.Contains(a.page().Client, want) {
			r.Errorf("reviews has not seen %q: %+v", want, a)
		}
	}
	m.keepsPlaintextOut(r, "reviews-1")
	remove := r.apply(m.namespace, `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  trafficPolicy: {tls: {mode: ISTIO_MUTUAL, subjectAltNames: ["spiffe://cluster.local/ns/other/sa/reviews"]}}
`)
	r.calls("front", "http://reviews/", "is refused, for reviews is not whom it was to be",
		func(a answer) bool { return a.Status == http.StatusServiceUnavailable })
	remove()
	r.calls("front", "http://reviews/", "answers again", answered)
	for _, name := range []string{"front", "reviews-1", "reviews-2"} {
		r.marked(name)
	}
}

// protocols tests HTTP, gRPC and TCP over mTLS.
func (m *serviceMesh) protocols(r *rig) {
	r.namespace = m.namespace
	for _, to := range []string{"http://reviews/", "grpc://reviews:81", "tcp://reviews:90"} {
		m.hearsFront(r, to)
	}
}

// allowed makes the peer's port excludedPort a service of the mesh.
var allowed = fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside}
spec:
  hosts: [outside.example]
  addresses: [%s/32]
  ports: [{number: %d, name: tcp, protocol: TCP}]
  resolution: STATIC
  endpoints: [{address: %[1]s}]
`, cluster.Address, excludedPort)

// egress tests REGISTRY_ONLY: an app can reach only what a ServiceEntry names outside the mesh.
func (m *serviceMesh) egress(r *rig) {
	r.namespace = m.namespace
	to := fmt.Sprintf("tcp://%s:%d", cluster.Address, excludedPort)
	if a := r.call("front", to); answered(a) {
		r.Errorf("%s answers although no ServiceEntry names it: %+v", to, a)
	}
	remove := r.apply(m.namespace, allowed)
	r.calls("front", to, "answers", func(a answer) bool { return a.Body == "peer" })
	if a := r.call("front", "tcp://"+strings.TrimPrefix(target4, "tcp:")); answered(a) {
		r.Errorf("another port of the same host answers: %+v", a)
	}
	remove()
	r.calls("front", to, "is refused again", func(a answer) bool { return !answered(a) })
}

// authorization tests that an AuthorizationPolicy identifies callers by their certificates.
func (m *serviceMesh) authorization(r *rig) {
	r.namespace = m.namespace
	remove := r.apply(m.namespace, `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: reviews}
spec:
  selector: {matchLabels: {app: reviews}}
  action: DENY
  rules: [{from: [{source: {principals: ["*/sa/front"]}}]}]
`)
	r.calls("front", "http://reviews/", "is forbidden", func(a answer) bool { return a.Status == http.StatusForbidden })
	r.calls("front", "tcp://reviews:90", "is refused", func(a answer) bool { return !answered(a) })
	r.calls("reviews-1", "http://reviews/", "answers: another caller is not forbidden", answered)
	remove()
	r.calls("front", "http://reviews/", "answers again", answered)
}

// routing tests a VirtualService that sends all traffic to one version, and one that injects a fault.
func (m *serviceMesh) routing(r *rig) {
	r.namespace = m.namespace
	const route = `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http: [{%s route: [{destination: {host: reviews, subset: %s}}]}]
`
	for version, pod := range map[string]string{"v1": "/reviews-1", "v2": "/reviews-2"} {
		r.apply(m.namespace, fmt.Sprintf(route, "", version))
		r.eventually("all of twenty calls go to "+version, func() bool {
			for range 20 {
				if !strings.HasSuffix(r.call("front", "http://reviews/").page().Name, pod) {
					return false
				}
			}
			return true
		})
	}
	r.apply(m.namespace, fmt.Sprintf(route, "fault: {abort: {httpStatus: 418, percentage: {value: 100}}},", "v1"))
	r.calls("front", "http://reviews/", "fails as it was told",
		func(a answer) bool { return a.Status == http.StatusTeapot })
}

// names tests DNS capture: the sidecar resolves names that exist only in the mesh.
func (m *serviceMesh) names(r *rig) {
	r.namespace = m.namespace
	pod := m.app(r, "asking", "asking", "v1")
	pod.Annotations["proxy.istio.io/config"] = `proxyMetadata: {ISTIO_META_DNS_CAPTURE: "true"}`
	r.guests(pod)
	r.ready("asking")
	r.apply(m.namespace, allowed)
	to := fmt.Sprint("tcp://outside.example:", excludedPort)
	r.calls("asking", to, "answers", func(a answer) bool { return a.Body == "peer" })
	r.calls("asking", "http://reviews/", "answers", answered)
	r.calls("front", to, "does not know the name, without capture",
		func(a answer) bool { return strings.Contains(a.Error, "no such host") })
	m.keeps(r, "asking")
}

// lifecycle tests the ways to start a sidecar: as a native sidecar, with an app that waits for Envoy, and as stock
// Istio does, with Istio's own validation.
func (m *serviceMesh) lifecycle(r *rig) {
	r.namespace = m.namespace
	for name, annotations := range map[string]map[string]string{
		"native": {"sidecar.istio.io/nativeSidecar": "true"},
		"held": {"sidecar.istio.io/nativeSidecar": "false",
			"proxy.istio.io/config": "holdApplicationUntilProxyStarts: true"},
		"stock": {"inject.istio.io/templates": "sidecar"},
	} {
		pod := m.app(r, name, name, "v1")
		for key, value := range annotations {
			pod.Annotations[key] = value
		}
		r.guests(pod)
	}
	for _, name := range []string{"native", "held", "stock"} {
		r.ready(name)
		r.calls(name, "http://reviews/", "answers", answered)
		m.keeps(r, name)
	}
	for name, native := range map[string]bool{"native": true, "held": false} {
		c := container(r.pod(name), "istio-proxy")
		if (c.RestartPolicy != nil) != native || (c.Lifecycle != nil && c.Lifecycle.PostStart != nil) == native {
			r.Errorf("the sidecar of %s is started otherwise: %+v", name, c)
		}
	}
	if log := r.says("held", "app"); strings.Contains(log, target4+refusedDial) {
		r.Errorf("the app of held was there before Envoy:\n%.1000s", log)
	}
	if image := container(r.pod("stock"), "istio-validation").Image; strings.Contains(image, pluginImage()) {
		r.Errorf("the pod by stock injection has our wait: %s", image)
	}
}

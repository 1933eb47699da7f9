package e2e

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// capturesDNS turns DNS capture on in every sidecar of the mesh that is injected from now on.
const capturesDNS = `apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: dns, namespace: istio-system}
spec: {environmentVariables: {ISTIO_META_DNS_CAPTURE: "true"}}
`

// verified tests `istio-pod-networkctl verify --istio`. It proves both nodes with Istio's own injection and Envoy, and
// needs only the rights of the chart's verifier role. An unknown revision is reported, and nothing is created.
func (m *serviceMesh) verified(r *rig) {
	as := r.asVerifier()
	out, err := asAdmin("istio-pod-networkctl", "verify", as, "--istio", "--revision=none").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "default") || r.verifyIsThere() {
		r.Errorf("a revision that is not there: %v: %s; the namespace is left: %t", err, out, r.verifyIsThere())
	}
	r.apply("", capturesDNS)
	r.namespace = m.namespace
	r.eventually("sidecars capture DNS", func() bool { // istiod sees it with a delay
		pod, err := r.dryRun(r.appPod("try"))
		return err == nil && slices.ContainsFunc(container(pod, "istio-proxy").Env, func(e corev1.EnvVar) bool {
			return e.Name == "ISTIO_META_DNS_CAPTURE" && e.Value == "true"
		})
	})
	status, v := r.verifies(as, "--istio")
	if status != 0 || v.Summary.Well != len(nodes.Nodes) || len(v.Items) != len(nodes.Nodes) || r.verifyIsThere() {
		r.Errorf("status %d: %+v; the namespace is left: %t", status, v, r.verifyIsThere())
	}
	for _, n := range v.Items {
		well, escapes := map[string]bool{}, 0
		for _, f := range n.Flows {
			switch {
			case f.Verdict != "well":
				if f.Family == "IPv4" {
					r.Errorf("%s: %+v", n.Name, f)
				}
			case strings.HasPrefix(f.Flow, "escape/"):
				escapes++
			default:
				well[f.Flow] = true
			}
		}
		for _, flow := range []string{"outbound", "inbound", "mtls", "dns", "dns-tcp", "held-outbound", "held-inbound",
			"excluded-outbound", "excluded-inbound"} {
			if !well[flow] {
				r.Errorf("%s: %s is not shown: %+v", n.Name, flow, n.Flows)
			}
		}
		if !n.Control || escapes == 0 {
			r.Errorf("%s: control %t, %d attempts: %+v", n.Name, n.Control, escapes, n)
		}
		r.note("%s: %d flows by Envoy, %d attempts", n.Name, len(n.Flows)-escapes, escapes)
	}
	if !slices.ContainsFunc(v.NotLookedAt, func(what string) bool { return strings.Contains(what, "Envoy makes none") }) {
		r.Errorf("it does not say what cannot be seen: %q", v.NotLookedAt)
	}
}

package e2e

import (
	"fmt"
	"net"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// dualRevision is the revision of istiod with the values that docs/migration.md has for dual-stack pods.
const dualRevision = "dual"

// inBoth makes a service dual-stack.
func inBoth(s *corev1.ServiceSpec) {
	policy := corev1.IPFamilyPolicyRequireDualStack
	s.IPFamilyPolicy = &policy
}

// byFamily returns the cluster IPs of a service in the rig's namespace.
func (r *rig) byFamily(name string) (v4, v6 string) {
	r.Helper()
	s, err := nodes.Client.CoreV1().Services(r.namespace).Get(r.ctx, name, metav1.GetOptions{})
	must(r, err)
	for _, address := range s.Spec.ClusterIPs {
		if strings.Contains(address, ":") {
			v6 = address
		} else {
			v4 = address
		}
	}
	if v4 == "" || v6 == "" {
		r.Fatalf("service %s has %q", name, s.Spec.ClusterIPs)
	}
	return v4, v6
}

// families tests dual-stack pods. Sidecars without Istio's dual-stack setting listen on IPv4 only, and an Event of
// their pods says so. But istiod gives them the IPv6 addresses of a dual-stack service, so some TCP calls are refused.
// With the documented values every call is answered, in both families and by mTLS.
func (m *serviceMesh) families(r *rig) {
	m.inOneFamily(r)
	m.revision(r, dualRevision, ourWait(), r.file("dual.yaml", r.documented("migration.md", "Prepare dual-stack pods")))
	m.injectedBy(r, dualRevision, "restricted")
	names := []string{"caller", "called"}
	for _, name := range names {
		r.create(m.app(r, name, name, "v1"))
	}
	r.service("called", inBoth)
	for _, name := range names {
		r.ready(name)
	}
	v4, v6 := r.byFamily("called")
	for _, address := range []string{v4, v6} {
		a := r.calls("caller", "http://"+net.JoinHostPort(address, "80")+"/", "answers", answered)
		m.identified(r, a, r.namespace, "caller")
		for port, scheme := range map[string]string{"81": "grpc", "90": "tcp"} {
			to := scheme + "://" + net.JoinHostPort(address, port)
			r.calls("caller", to, "answers", answered)
			for range manyCalls {
				if a := r.call("caller", to); !answered(a) {
					r.Errorf("%s: %+v", to, a)
				}
			}
		}
	}
	for _, name := range names {
		m.speaks(r, name)
		m.keepsPlaintextOut(r, name)
		r.marked(name)
		m.keeps(r, name)
	}
}

// manyCalls is large enough that not all calls succeed by chance if every second one fails.
const manyCalls = 40

// inOneFamily shows how a dual-stack service behaves without the documented values.
func (m *serviceMesh) inOneFamily(r *rig) {
	r.Helper()
	r.namespace = m.namespace
	r.service("reviews-in-both", func(s *corev1.ServiceSpec) {
		inBoth(s)
		s.Selector = map[string]string{"app": "reviews"}
	})
	r.Cleanup(func() {
		must(r, nodes.Client.CoreV1().Services(m.namespace).Delete(r.ctx, "reviews-in-both", metav1.DeleteOptions{}))
	})
	v4, v6 := r.byFamily("reviews-in-both")
	r.calls("front", "tcp://"+net.JoinHostPort(v4, "90"), "answers", answered) // wait until the sidecar knows the service
	r.calls("front", "tcp://"+net.JoinHostPort(v4, "90"), "is refused", func(a answer) bool { return !answered(a) })
	refused := 0
	for range manyCalls {
		if !answered(r.call("front", "tcp://"+net.JoinHostPort(v4, "90"))) {
			refused++
		}
	}
	r.note("without ISTIO_DUAL_STACK: %d of %d calls of tcp refused", refused, manyCalls)
	if a := r.call("front", "tcp://"+net.JoinHostPort(v6, "90")); !strings.Contains(a.Error, "connection refused") {
		r.Errorf("by IPv6: %+v", a)
	}
	for _, name := range []string{"front", "reviews-1"} {
		r.eventually(fmt.Sprintf("an Event says that %s refuses IPv6", name), func() bool {
			return strings.Contains(events(r.namespace), name+" IPv6Refused ")
		})
	}
}

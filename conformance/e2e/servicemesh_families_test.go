package e2e

import (
	"fmt"
	"net"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// dualRevision is the revision of istiod that has the values of docs/migration.md for pods of both families.
const dualRevision = "dual"

// inBoth makes a service one of both families.
func inBoth(s *corev1.ServiceSpec) {
	policy := corev1.IPFamilyPolicyRequireDualStack
	s.IPFamilyPolicy = &policy
}

// byFamily are the addresses of a service of the rig's namespace.
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

// Sidecars that do not know of both families listen in IPv4 alone, and an Event of their pods says so; istiod names
// the IPv6 addresses of a service of both all the same, so calls by TCP are refused now and then. With the documented
// values each call is answered, in either family and by mTLS.
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

// manyCalls are so many that one in two of them is not answered by luck.
const manyCalls = 40

// inOneFamily shows what becomes of a service of both families without the values.
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
	r.calls("front", "tcp://"+net.JoinHostPort(v4, "90"), "answers", answered) // the sidecar knows the service
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

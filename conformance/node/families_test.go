package node

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/isolated"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/record"
	corev1 "k8s.io/api/core/v1"
)

// dualStack gives the sandbox an interface with addresses and routes of both families, IPv6 first.
func (s *podSandbox) dualStack() *podSandbox {
	s.Helper()
	must(s, isolated.InNetNS(s.NetNS, func() error {
		for _, line := range []string{
			"link add eth0 type veth peer name peer0", "link set peer0 up", "link set eth0 up",
			"address add fd00:88::2/64 dev eth0 nodad", "address add 10.88.0.2/24 dev eth0",
			"route add default dev eth0", "-6 route add default dev eth0",
		} {
			if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
				return fmt.Errorf("ip %s: %w: %s", line, err, out)
			}
		}
		return nil
	}))
	return s
}

// The captured families depend on the sidecar's settings, as the agent knows them, and on the pod's addresses. Record,
// mark, wait and CHECK agree on them, even if the operator's setting changes. A repair, which has no annotations from
// the runtime, gives the same result.
func TestFamilies(t *testing.T) {
	r := newRig(t).withPrimary()
	r.entry["redirect"] = map[string]any{"families": "proxy"}
	r.startAgent()
	r.ready()
	for _, c := range []struct {
		name, want string
		env        []corev1.EnvVar
		repaired   bool
	}{
		{name: "default", want: "IPv4"},
		{name: "repaired", want: "IPv4", repaired: true},
		{name: "told", env: []corev1.EnvVar{{Name: "ISTIO_DUAL_STACK", Value: "true"}}},
		{name: "elsewhere", env: []corev1.EnvVar{{Name: "ISTIO_DUAL_STACK", ValueFrom: &corev1.EnvVarSource{
			FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels['x']"}}}}},
	} {
		pod := r.podOf(c.name, meshAnnotations())
		pod.Spec.Containers[1].Env = c.env
		s := r.sandbox(r.create(pod)).dualStack()
		s.Annotated = !c.repaired
		rec := s.add(record.Redirect, "injected")
		r.marked(c.name, rec)
		if told := r.pod(c.name).Annotations[annotation.Families]; rec.Families != c.want || told != c.want {
			t.Errorf("%s: recorded %q, told %q, want %q", c.name, rec.Families, told, c.want)
		}
		for _, mode := range []string{"any", "probe"} {
			status, out := s.wait("--mode="+mode, "--timeout=60")
			if status != 0 || mode == "probe" && strings.Contains(out, "IPv6") == (c.want == "IPv4") {
				t.Errorf("%s: the wait by %s ends with %d: %s", c.name, mode, status, out)
			}
		}
		if code, text := s.cni("CHECK"); code != 0 {
			t.Errorf("%s: CHECK: code %d: %s", c.name, code, text)
		}
	}
}

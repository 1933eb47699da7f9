package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/conformance/internal/cluster"
	"github.com/istio-pod-network/controller/plugin/record"
	corev1 "k8s.io/api/core/v1"
)

// network gives the node's pods another network until the end of the test.
func (r *rig) network(config string) {
	r.Helper()
	r.Cleanup(func() { r.writeNetwork(r.node.Primary(cluster.DualStack)) })
	r.writeNetwork(config)
}

// writeNetwork does what a primary CNI does when its configuration is changed. The rig's pods that are there go: a
// bridge stays as it was made.
func (r *rig) writeNetwork(config string) {
	r.Helper()
	r.clear(r.namespace)
	must(r, r.node.RemoveBridges())
	must(r, replace(r.node.Conflist(), []byte(config)))
	r.rechained()
}

// rechained waits until the plugin is in the network of the rig's node, the agent says so, and the runtime has it.
func (r *rig) rechained() {
	r.Helper()
	r.eventually("the plugin is in the network", func() bool {
		_, dropIn := os.Stat(r.node.Path(filepath.Join(cluster.ConfDir, "podnet", "99-istio-pod-network.conf")))
		data, err := os.ReadFile(r.node.Conflist())
		return err == nil && (dropIn == nil || strings.Contains(string(data), `"istio-pod-network"`))
	})
	r.agentsReady()
	must(r, r.node.RestartRuntime()) // which may not have read it yet when the agent has
}

// inFamilies makes a pod, which has to get addresses of those families.
func (r *rig) inFamilies(f cluster.Families, pod *corev1.Pod) *corev1.Pod {
	r.Helper()
	r.create(pod)
	pod = r.running(pod.Name)
	var got cluster.Families
	for _, ip := range pod.Status.PodIPs {
		if strings.Contains(ip.IP, ":") {
			got.V6 = true
		} else {
			got.V4 = true
		}
	}
	if got != f {
		r.Errorf("%s has %v", pod.Name, pod.Status.PodIPs)
	}
	return pod
}

// sysctl sets a parameter of the node's kernel until the end of the test, when nothing is left that was made under it.
func (r *rig) sysctl(name, value string) {
	r.Helper()
	before := strings.TrimSpace(r.output(r.node.Command("sysctl", "-n", name)))
	r.Cleanup(func() {
		r.output(r.node.Command("sysctl", "-qw", name+"="+before))
		r.clear(r.namespace)
		must(r, r.node.RemoveBridges())
	})
	r.output(r.node.Command("sysctl", "-qw", name+"="+value))
}

// A cluster whose pods have no IPv4 address.
func TestIPv6Only(t *testing.T) {
	onEveryNode(t, func(r *rig) {
		r.installed()
		only6 := cluster.Families{V6: true}
		r.network(r.node.Primary(only6))
		pod := r.inFamilies(only6, r.meshPod("cart-0"))
		r.seen(r.appPod("plain"))
		r.throughSidecar("cart-0", target6)
		r.answersFrom("sidecar-inbound", pod, 8080)
		r.marked("cart-0")
	})
}

// A node that has IPv6 switched off for its pods: the rules of both families are there, and what cannot be is named in
// the record.
func TestIPv6Disabled(t *testing.T) {
	onEveryNode(t, func(r *rig) {
		r.installed()
		r.sysctl("net.ipv6.conf.default.disable_ipv6", "1")
		only4 := cluster.Families{V4: true}
		r.network(r.node.Primary(only4, `{"type": "tuning", "sysctl": {"net.ipv6.conf.all.disable_ipv6": "1"}}`))
		pod := r.inFamilies(only4, r.meshPod("cart-0"))
		r.seen(r.appPod("plain"))
		r.throughSidecar("cart-0", target4)
		r.answersFrom("sidecar-inbound", pod, 8080)
		r.marked("cart-0")
		records, _ := record.Store{Dir: r.node.Path(stateDir)}.List()
		for _, rec := range records {
			if rec.PodUID == string(pod.UID) {
				if len(rec.Skipped) == 0 {
					r.Errorf("the record names nothing that was skipped: %+v", rec)
				}
				return
			}
		}
		r.Errorf("no record of the pod")
	})
}

// inUserNamespace gives a pod users that are not those of the node.
func inUserNamespace(pod *corev1.Pod) *corev1.Pod {
	no := false
	pod.Spec.HostUsers = &no
	for _, c := range append(pod.Spec.Containers, pod.Spec.InitContainers...) {
		if *c.SecurityContext.RunAsUser == appUser { // a pod has 65,536 users
			user := int64(10001)
			c.SecurityContext.RunAsUser, c.SecurityContext.RunAsGroup = &user, &user
		}
	}
	return pod
}

// The network namespace of a pod with users of its own belongs to another user namespace.
func TestUserNamespace(t *testing.T) {
	r := newRig(t)
	r.installed()
	r.seen(inUserNamespace(r.appPod("plain")))
	r.create(inUserNamespace(r.meshPod("cart-0")))
	r.throughSidecar("cart-0")
	r.answersFrom("sidecar-inbound", r.pod("cart-0"), 8080)
	r.marked("cart-0")
}

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

// network replaces the network configuration of the node's pods until the end of the test.
func (r *rig) network(config string) {
	r.Helper()
	r.Cleanup(func() { r.writeNetwork(r.node.Primary(cluster.DualStack)) })
	r.writeNetwork(config)
}

// writeNetwork writes the configuration as a primary CNI does. It first deletes the rig's pods and the bridges, because
// a bridge keeps its old settings.
func (r *rig) writeNetwork(config string) {
	r.Helper()
	r.clear(r.namespace)
	must(r, r.node.RemoveBridges())
	must(r, replace(r.node.Conflist(), []byte(config)))
	r.rechained()
}

// rechained waits until the plugin is in the network configuration of the rig's node, the agent is ready, and the
// runtime has read the configuration.
func (r *rig) rechained() {
	r.Helper()
	r.eventually("the plugin is in the network", func() bool {
		_, dropIn := os.Stat(r.node.Path(filepath.Join(cluster.ConfDir, "podnet", "99-istio-pod-network.conf")))
		data, err := os.ReadFile(r.node.Conflist())
		return err == nil && (dropIn == nil || strings.Contains(string(data), `"istio-pod-network"`))
	})
	r.agentsReady()
	must(r, r.node.RestartRuntime()) // the runtime may read it later than the agent
}

// inFamilies creates a pod, and fails unless it gets addresses of exactly those families.
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

// sysctl sets a kernel parameter of the node until the end of the test. Afterwards it removes the pods and bridges that
// were created with it.
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

// The plugin works in a cluster whose pods have no IPv4 address.
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

// The node's pods have IPv6 turned off. The plugin adds the rules of both families, and the record lists what it had to
// skip.
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

// inUserNamespace gives a pod its own user namespace.
func inUserNamespace(pod *corev1.Pod) *corev1.Pod {
	no := false
	pod.Spec.HostUsers = &no
	for _, c := range append(pod.Spec.Containers, pod.Spec.InitContainers...) {
		if *c.SecurityContext.RunAsUser == appUser { // a pod's user namespace has 65,536 users
			user := int64(10001)
			c.SecurityContext.RunAsUser, c.SecurityContext.RunAsGroup = &user, &user
		}
	}
	return pod
}

// The plugin works if the pod's network namespace belongs to another user namespace.
func TestUserNamespace(t *testing.T) {
	r := newRig(t)
	r.installed()
	r.seen(inUserNamespace(r.appPod("plain")))
	r.create(inUserNamespace(r.meshPod("cart-0")))
	r.throughSidecar("cart-0")
	r.answersFrom("sidecar-inbound", r.pod("cart-0"), 8080)
	r.marked("cart-0")
}

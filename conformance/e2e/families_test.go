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

// network gives the node's pods another network, as its primary CNI would after a change of its configuration, until the end of the
// test.
func (r *rig) network(config string) {
	r.Helper()
	write := func(config string) {
		must(r, replace(r.node.Conflist(), []byte(config)))
		r.eventually("the plugin is in the new network", func() bool {
			_, dropIn := os.Stat(r.node.Path(filepath.Join(cluster.ConfDir, "podnet", "99-istio-pod-network.conf")))
			data, err := os.ReadFile(r.node.Conflist())
			return err == nil && (dropIn == nil || strings.Contains(string(data), `"istio-pod-network"`))
		})
		r.agentsReady()
	}
	write(config)
	r.Cleanup(func() { write(r.node.Primary(cluster.DualStack)) })
}

// inFamilies makes a pod in the new network. The runtime may not have read it yet when the agent has.
func (r *rig) inFamilies(f cluster.Families, make func() *corev1.Pod) *corev1.Pod {
	r.Helper()
	for {
		pod := make()
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
		if got == f {
			return pod
		}
		r.Logf("%s has %v, of the network before", pod.Name, pod.Status.PodIPs)
		r.clear(r.namespace)
	}
}

// A cluster whose pods have no IPv4 address.
func TestIPv6Only(t *testing.T) {
	onEveryNode(t, func(r *rig) {
		r.installed()
		only6 := cluster.Families{V6: true}
		r.network(r.node.Primary(only6))
		pod := r.inFamilies(only6, func() *corev1.Pod { return r.meshPod("cart-0") })
		r.seen(r.appPod("plain"))
		r.throughSidecar("cart-0", target6)
		r.answersFrom("sidecar-inbound", pod, 8080)
		r.marked("cart-0")
	})
}

// A node that has IPv6 switched off for its pods: the rules of both families are there, and what cannot be is named in the record.
func TestIPv6Disabled(t *testing.T) {
	onEveryNode(t, func(r *rig) {
		r.installed()
		sysctl := func(value string) {
			r.output(r.node.Command("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6="+value))
		}
		sysctl("1")
		r.Cleanup(func() { sysctl("0") })
		only4 := cluster.Families{V4: true}
		r.network(r.node.Primary(only4, `{"type": "tuning", "sysctl": {"net.ipv6.conf.all.disable_ipv6": "1"}}`))
		pod := r.inFamilies(only4, func() *corev1.Pod { return r.meshPod("cart-0") })
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

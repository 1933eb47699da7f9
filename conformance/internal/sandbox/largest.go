package sandbox

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Enlarge makes a pod with a sidecar as large as the API server accepts, with room for the agent's mark. etcd limits a
// request to 1.5 MiB, and the API server annotations to 256 KiB. The number selects one of four kinds: few long texts,
// many short ones, long lists in what the product reads, or long lists of groups.
func Enlarge(pod *corev1.Pod, number int) {
	const annotations, environment = 250 << 10, 1100 << 10
	proxy := &pod.Spec.Containers[1]
	switch number % 4 {
	case 0:
		pod.Annotations["example.com/text"] = strings.Repeat("<", annotations)
		proxy.Env = []corev1.EnvVar{{Name: "TEXT", Value: strings.Repeat("x", environment)}}
	case 1:
		for i := range annotations / 60 {
			pod.Annotations[fmt.Sprintf("traffic.sidecar.istio.io/setting-%05d", i)] = "0123456789"
		}
		for i := range environment / 40 {
			proxy.Env = append(proxy.Env, corev1.EnvVar{Name: fmt.Sprintf("ISTIO_META_%05d", i), Value: "0123456789012345"})
		}
	case 2:
		pod.Annotations["traffic.sidecar.istio.io/excludeOutboundPorts"] = strings.Repeat("8080,", annotations/5) + "8080"
		proxy.Env = []corev1.EnvVar{
			{Name: "ISTIO_META_DNS_CAPTURE", Value: strings.Repeat("x", environment/2)},
			{Name: "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", Value: strings.Repeat("4000000000,", environment/22) + "5"},
		}
	case 3:
		var groups []int64
		for i := range environment / 6 { // 6 bytes each in etcd
			groups = append(groups, int64(2_000_000_000+i))
		}
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{SupplementalGroups: groups}
	}
}

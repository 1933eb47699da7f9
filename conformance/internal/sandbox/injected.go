package sandbox

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Injected returns a pod on a node, about as large as a pod after Istio's injection: some 10 KB, most of which the
// agent does not need.
func Injected(namespace, name, node string) *corev1.Pod {
	id := int64(1337)
	limits := corev1.ResourceRequirements{Requests: corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi"),
	}}
	var env []corev1.EnvVar
	for i := range 40 {
		env = append(env, corev1.EnvVar{Name: fmt.Sprintf("ISTIO_META_SETTING_%d", i), Value: strings.Repeat("v", 40)})
	}
	mount := []corev1.VolumeMount{{Name: "data", MountPath: "/data"}, {Name: "podinfo", MountPath: "/etc/istio/pod"}}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: namespace,
			Labels: map[string]string{"app": "cart", "security.istio.io/tlsMode": "istio",
				"service.istio.io/canonical-name": "cart"},
			Annotations: map[string]string{
				"sidecar.istio.io/status": `{"initContainers":["istio-validation"],"containers":["istio-proxy"],` +
					`"volumes":["workload-socket","credential-socket",` +
					`"workload-certs","istio-envoy","istio-data","istio-podinfo","istio-token","istiod-ca-cert"],` +
					`"imagePullSecrets":null,"revision":"default"}`,
				"sidecar.istio.io/interceptionMode":                "REDIRECT",
				"traffic.sidecar.istio.io/includeInboundPorts":     "*",
				"traffic.sidecar.istio.io/excludeInboundPorts":     "15020,15021,15090",
				"traffic.sidecar.istio.io/includeOutboundIPRanges": "*",
				"kubectl.kubernetes.io/last-applied-configuration": strings.Repeat("{}", 1500),
			},
		},
		Spec: corev1.PodSpec{
			NodeName: node,
			InitContainers: []corev1.Container{{
				Name: "istio-validation", Image: "registry.example/wait", Command: []string{"/istio-pod-network-wait"},
				VolumeMounts: mount, Resources: limits,
			}},
			Containers: []corev1.Container{
				{Name: "app", Image: "registry.example/app", Env: env, VolumeMounts: mount, Resources: limits},
				{Name: "istio-proxy", Image: "registry.example/proxy", Args: []string{"proxy", "sidecar", "--domain",
					"$(POD_NAMESPACE).svc.cluster.local"}, Env: env,
					VolumeMounts: mount, Resources: limits, SecurityContext: &corev1.SecurityContext{RunAsUser: &id, RunAsGroup: &id}},
			},
			Volumes: []corev1.Volume{
				{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
				{Name: "podinfo", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{
					Items: []corev1.DownwardAPIVolumeFile{
						{Path: "annotations", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.annotations"}},
					}}}},
			},
		},
	}
}

package chart

import (
	"fmt"
	"math/rand/v2"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// debug adds an ephemeral container with that group, and with that user if it is not 0.
func (g *guarded) debug(as *kubernetes.Clientset, pod string, user int64, group *int64, dryRun bool) error {
	now, err := g.admin.CoreV1().Pods(shop).Get(g.ctx, pod, metav1.GetOptions{})
	g.must(err)
	context := &corev1.SecurityContext{RunAsGroup: group}
	if user != 0 {
		context.RunAsUser = &user
	}
	now.Spec.EphemeralContainers = append(now.Spec.EphemeralContainers, corev1.EphemeralContainer{
		EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: fmt.Sprint("debugger-", rand.Int()), Image: "sh",
			ImagePullPolicy: corev1.PullAlways, TerminationMessagePolicy: corev1.TerminationMessageReadFile,
			SecurityContext: context},
	})
	options := metav1.UpdateOptions{}
	if dryRun {
		options.DryRun = []string{"All"}
	}
	_, err = as.CoreV1().Pods(shop).UpdateEphemeralContainers(g.ctx, pod, now, options)
	return err
}

// meshed creates a pod with a sidecar.
func (g *guarded) meshed(name string, change func(pod *corev1.Pod, proxy *corev1.Container)) {
	g.Helper()
	pod := g.pod(name, "a", nil)
	proxy := corev1.Container{Name: "istio-proxy", Image: "proxy"}
	change(pod, &proxy)
	if proxy.RestartPolicy != nil {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, proxy)
	} else {
		pod.Spec.Containers = append(pod.Spec.Containers, proxy)
	}
	_, err := g.admin.CoreV1().Pods(shop).Create(g.ctx, pod, metav1.CreateOptions{})
	g.must(err)
}

// debuggers tries which ephemeral containers a pod may get.
func (g *guarded) debuggers() {
	g.Helper()
	g.meshed("native", func(_ *corev1.Pod, proxy *corev1.Container) {
		proxy.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
		proxy.SecurityContext = &corev1.SecurityContext{RunAsGroup: new(int64(2001))}
	})
	g.meshed("gateway", func(_ *corev1.Pod, proxy *corev1.Container) { proxy.Args = []string{"proxy", "router"} })
	g.meshed("untouched", func(*corev1.Pod, *corev1.Container) {})
	g.must(patch(g.agent, "untouched", "status", annotated(status, "not-required", netns, "b/1/1")))
	g.meshed("pod-wide", func(pod *corev1.Pod, proxy *corev1.Container) {
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: new(int64(3000)), RunAsGroup: new(int64(3001))}
		proxy.Args = []string{"proxy", "sidecar"}
	})
	g.meshed("named", func(pod *corev1.Pod, _ *corev1.Container) {
		pod.Annotations = map[string]string{"pod-network-controller.istio.io/envoy-userid": "4000",
			"pod-network-controller.istio.io/envoy-groupid": "4001"}
	})
	g.meshed("zeros", func(pod *corev1.Pod, _ *corev1.Container) {
		pod.Annotations = map[string]string{"pod-network-controller.istio.io/envoy-userid": "0006000",
			"pod-network-controller.istio.io/envoy-groupid": "000000000000000006001"}
	})
	for _, c := range []struct {
		what, pod string
		user      int64
		group     *int64
		refused   bool
	}{
		{"the user that is configured", "meshed", 1337, nil, true},
		{"the user of the sidecar", "meshed", 2000, nil, true},
		{"the group", "meshed", 5, new(int64(1337)), true},
		{"no user", "meshed", 0, nil, false},
		{"another", "meshed", 5, new(int64(5)), false},
		{"outside the mesh", "on-b", 1337, nil, false},
		{"the group of a native sidecar", "native", 5, new(int64(2001)), true},
		{"the user beside a gateway", "gateway", 1337, nil, false},
		{"the user, whatever the pod is marked", "untouched", 1337, nil, true},
		{"the user of the pod", "pod-wide", 0, new(int64(5)), true},
		{"the group of the pod", "pod-wide", 5, nil, true},
		{"neither", "pod-wide", 5, new(int64(5)), false},
		{"the user of the annotation", "named", 4000, new(int64(5)), true},
		{"the group of the annotation", "named", 5, new(int64(4001)), true},
		{"the user of an annotation with zeros", "zeros", 6000, new(int64(5)), true},
		{"the group of an annotation with zeros", "zeros", 5, new(int64(6001)), true},
		{"the user of an annotation that is none", "zeros", 5, new(int64(5)), false},
	} {
		err := g.debug(g.editor, c.pod, c.user, c.group, false)
		if (err != nil) != c.refused || err != nil && !strings.Contains(err.Error(), "istio-pod-network-shared-user") {
			g.Errorf("an ephemeral container with %s: %v, want it refused: %t", c.what, err, c.refused)
		}
	}
}

package kube

import (
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
)

// FactsOf is a pod as the plugin wants to know it.
func FactsOf(pod *corev1.Pod, namespace map[string]string) redirect.Pod {
	f := redirect.Pod{
		Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID), Complete: true,
		Annotations: pod.Annotations, Labels: pod.Labels, NamespaceAnnotations: namespace,
		Containers: containersOf(pod.Spec.Containers), InitContainers: containersOf(pod.Spec.InitContainers),
	}
	if f.Annotations == nil {
		f.Annotations = map[string]string{} // none, which is not the same as not known
	}
	if s := pod.Spec.SecurityContext; s != nil {
		f.RunAsUser, f.RunAsGroup = s.RunAsUser, s.RunAsGroup
	}
	return f
}

func containersOf(containers []corev1.Container) []redirect.Container {
	var all []redirect.Container
	for _, c := range containers {
		f := redirect.Container{Name: c.Name, NetAdmin: isNetAdmin(c), Restartable: isSidecar(c)}
		if c.Name == redirect.ProxyContainer {
			f.Args, f.Env = c.Args, literals(c.Env)
		}
		if s := c.SecurityContext; s != nil {
			f.RunAsUser, f.RunAsGroup = s.RunAsUser, s.RunAsGroup
		}
		all = append(all, f)
	}
	return all
}

// isSidecar reports whether an init container goes on beside the containers.
func isSidecar(c corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// literals are the variables whose value stands in the pod; others the kubelet resolves, and nobody here could.
func literals(env []corev1.EnvVar) map[string]string {
	values := map[string]string{}
	for _, v := range env {
		if v.ValueFrom == nil {
			values[v.Name] = v.Value
		}
	}
	return values
}

// isNetAdmin reports whether the container can write packet rules itself.
func isNetAdmin(c corev1.Container) bool {
	s := c.SecurityContext
	if s == nil {
		return false
	}
	if s.Privileged != nil && *s.Privileged {
		return true
	}
	if s.Capabilities == nil {
		return false
	}
	for _, added := range s.Capabilities.Add {
		switch strings.TrimPrefix(strings.ToUpper(string(added)), "CAP_") {
		case "ALL", "NET_ADMIN":
			return true
		}
	}
	return false
}

// AsRun gives the containers the users that their status tells: a user that only the image names is known from there
// alone, where the runtime reports it (Kubernetes 1.33 with containerd 2 or CRI-O 1.32).
func AsRun(facts redirect.Pod, status corev1.PodStatus) redirect.Pod {
	for _, known := range []struct {
		containers []redirect.Container
		statuses   []corev1.ContainerStatus
	}{{facts.Containers, status.ContainerStatuses}, {facts.InitContainers, status.InitContainerStatuses}} {
		for _, s := range known.statuses {
			i := slices.IndexFunc(known.containers, func(c redirect.Container) bool { return c.Name == s.Name })
			if i >= 0 && s.User != nil && s.User.Linux != nil {
				known.containers[i].RunAsUser, known.containers[i].RunAsGroup = &s.User.Linux.UID, &s.User.Linux.GID
			}
		}
	}
	return facts
}

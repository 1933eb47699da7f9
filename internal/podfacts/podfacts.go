// Package podfacts reads from a Pod object what the plugin's decision depends on, for the agent and the operator's
// tool. It also tells whether a pod waits for its network.
package podfacts

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
)

// Of returns the facts of a pod. namespace are the annotations of its namespace.
func Of(pod *corev1.Pod, namespace map[string]string) redirect.Pod {
	f := redirect.Pod{
		Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID), Complete: true,
		Annotations: redirect.ReadAnnotations(pod.Annotations), Labels: redirect.ReadLabels(pod.Labels),
		NamespaceAnnotations: namespace,
		Containers:           containersOf(pod.Spec.Containers), InitContainers: containersOf(pod.Spec.InitContainers),
	}
	if s := pod.Spec.SecurityContext; s != nil {
		f.RunAsUser, f.RunAsGroup = s.RunAsUser, s.RunAsGroup
		f.FSGroup, f.SupplementalGroups = s.FSGroup, s.SupplementalGroups
	}
	return f
}

func containersOf(containers []corev1.Container) []redirect.Container {
	var all []redirect.Container
	for _, c := range containers {
		f := redirect.Container{Name: c.Name, NetAdmin: IsNetAdmin(c), Restartable: IsSidecar(c)}
		if c.Name == redirect.ProxyContainer {
			f.Args = redirect.ReadArgs(c.Args)
			f.Env, f.Unresolved = Environment(c)
		}
		if s := c.SecurityContext; s != nil {
			f.RunAsUser, f.RunAsGroup = s.RunAsUser, s.RunAsGroup
		}
		all = append(all, f)
	}
	return all
}

// IsSidecar reports whether an init container is a native sidecar: it keeps running beside the containers.
func IsSidecar(c corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// Environment returns the variables that decisions read: those with a literal value, and the names of those that the
// kubelet takes from elsewhere, whose values are unknown here. Of two with the same name the last one counts.
func Environment(c corev1.Container) (values map[string]string, unresolved []string) {
	values = map[string]string{}
	elsewhere := map[string]bool{}
	if len(c.EnvFrom) > 0 {
		for _, name := range redirect.ProxyVariables {
			elsewhere[name] = true
		}
	}
	for _, v := range c.Env {
		if !redirect.ReadsEnv(v.Name) {
			continue
		}
		delete(values, v.Name)
		if elsewhere[v.Name] = v.ValueFrom != nil; v.ValueFrom == nil {
			values[v.Name] = v.Value
		}
	}
	maps.DeleteFunc(elsewhere, func(_ string, is bool) bool { return !is })
	return values, slices.Sorted(maps.Keys(elsewhere))
}

// IsNetAdmin reports whether the container can write packet rules.
func IsNetAdmin(c corev1.Container) bool {
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

// AsRun returns the facts of a running pod: Of, with its ephemeral containers, and with the users in the containers'
// status. Only the status tells a user that the image defines, if the runtime reports it (Kubernetes 1.33 with
// containerd 2 or CRI-O 1.32).
func AsRun(pod *corev1.Pod, namespace map[string]string) redirect.Pod {
	facts := Of(pod, namespace)
	facts.Containers = append(facts.Containers, containersOf(Ephemeral(pod))...)
	for _, known := range []struct {
		containers []redirect.Container
		statuses   []corev1.ContainerStatus
	}{
		{facts.Containers, slices.Concat(pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses)},
		{facts.InitContainers, pod.Status.InitContainerStatuses},
	} {
		for _, s := range known.statuses {
			i := slices.IndexFunc(known.containers, func(c redirect.Container) bool { return c.Name == s.Name })
			if i >= 0 && s.User != nil && s.User.Linux != nil {
				c, runs := &known.containers[i], s.User.Linux
				c.RunAsUser, c.RunAsGroup, c.SupplementalGroups = &runs.UID, &runs.GID, runs.SupplementalGroups
			}
		}
	}
	return facts
}

// Ephemeral returns the pod's ephemeral containers.
func Ephemeral(pod *corev1.Pod) []corev1.Container {
	var containers []corev1.Container
	for _, c := range pod.Spec.EphemeralContainers {
		containers = append(containers, corev1.Container(c.EphemeralContainerCommon))
	}
	return containers
}

// IsDualStack reports whether the pod has addresses of both IP families.
func IsDualStack(pod *corev1.Pod) bool {
	var v4, v6 bool
	for _, ip := range pod.Status.PodIPs {
		if addr, err := netip.ParseAddr(ip.IP); err == nil {
			v4, v6 = v4 || addr.Is4(), v6 || addr.Is6()
		}
	}
	return v4 && v6
}

// MayEscalate returns the names of the containers, without the sidecar, in which a setuid or setgid program changes its
// user or group: those without allowPrivilegeEscalation: false.
func MayEscalate(pod *corev1.Pod) (names []string) {
	beside := func(c corev1.Container) {
		s := c.SecurityContext
		if c.Name != redirect.ProxyContainer && (s == nil || s.AllowPrivilegeEscalation == nil ||
			*s.AllowPrivilegeEscalation) {
			names = append(names, c.Name)
		}
	}
	for _, c := range slices.Concat(pod.Spec.Containers, Ephemeral(pod)) {
		beside(c)
	}
	for _, c := range pod.Spec.InitContainers {
		if IsSidecar(c) {
			beside(c)
		}
	}
	return names
}

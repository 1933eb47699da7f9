package kube

import (
	"slices"

	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// keyLastApplied holds a second copy of the whole manifest, and means nothing to a mesh.
const keyLastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// trim returns the part of a pod that is looked at. With the rest, the memory would grow with what people write into
// pods.
func trim(pod *corev1.Pod) *corev1.Pod {
	delete(pod.Annotations, keyLastApplied)
	small := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
			Labels: pod.Labels, Annotations: pod.Annotations, DeletionTimestamp: pod.DeletionTimestamp,
		},
		Spec: corev1.PodSpec{
			NodeName: pod.Spec.NodeName, HostNetwork: pod.Spec.HostNetwork,
			Containers:     trimContainers(pod.Spec.Containers, false),
			InitContainers: trimContainers(pod.Spec.InitContainers, true),
		},
		Status: corev1.PodStatus{Phase: pod.Status.Phase, StartTime: pod.Status.StartTime},
	}
	if owner := metav1.GetControllerOfNoCopy(pod); owner != nil {
		small.OwnerReferences = []metav1.OwnerReference{*owner}
	}
	if s := pod.Spec.SecurityContext; s != nil {
		small.Spec.SecurityContext = &corev1.PodSecurityContext{
			RunAsUser: s.RunAsUser, RunAsGroup: s.RunAsGroup, FSGroup: s.FSGroup, SupplementalGroups: s.SupplementalGroups,
		}
	}
	for _, c := range trimContainers(ephemeral(pod), false) {
		small.Spec.EphemeralContainers = append(small.Spec.EphemeralContainers,
			corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon(c)})
	}
	small.Status.PodIPs = pod.Status.PodIPs // one of each family at most, says the API server
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReadyToStartContainers {
			small.Status.Conditions = []corev1.PodCondition{
				{Type: c.Type, Status: c.Status, LastTransitionTime: c.LastTransitionTime},
			}
		}
	}
	small.Status.ContainerStatuses = trimStatuses(pod.Status.ContainerStatuses)
	small.Status.EphemeralContainerStatuses = trimStatuses(pod.Status.EphemeralContainerStatuses)
	for _, c := range pod.Status.InitContainerStatuses {
		i := slices.IndexFunc(pod.Spec.InitContainers, func(spec corev1.Container) bool { return spec.Name == c.Name })
		if i < 0 {
			continue
		}
		kept := corev1.ContainerStatus{Name: c.Name}
		if isSidecar(pod.Spec.InitContainers[i]) {
			kept.User = trimUser(c.User)
		}
		if isWait(pod.Spec.InitContainers[i]) {
			kept.State.Running = c.State.Running
			if ended := c.State.Terminated; ended != nil {
				kept.State.Terminated = &corev1.ContainerStateTerminated{ExitCode: ended.ExitCode}
			}
		}
		if kept.User != nil || kept.State.Running != nil || kept.State.Terminated != nil {
			small.Status.InitContainerStatuses = append(small.Status.InitContainerStatuses, kept)
		}
	}
	return small
}

// trimStatuses keeps the users of containers.
func trimStatuses(statuses []corev1.ContainerStatus) (small []corev1.ContainerStatus) {
	for _, c := range statuses {
		if user := trimUser(c.User); user != nil {
			small = append(small, corev1.ContainerStatus{Name: c.Name, User: user})
		}
	}
	return small
}

// trimUser keeps what the packet rules could go by.
func trimUser(user *corev1.ContainerUser) *corev1.ContainerUser {
	if user == nil || user.Linux == nil {
		return nil
	}
	return &corev1.ContainerUser{Linux: &corev1.LinuxContainerUser{
		UID: user.Linux.UID, GID: user.Linux.GID, SupplementalGroups: user.Linux.SupplementalGroups,
	}}
}

func trimContainers(containers []corev1.Container, init bool) []corev1.Container {
	var small []corev1.Container
	for _, c := range containers {
		kept := corev1.Container{Name: c.Name, RestartPolicy: c.RestartPolicy}
		// Of other containers these are nobody's business here, and may be large or secret.
		proxy := c.Name == redirect.ProxyContainer
		if proxy || init {
			kept.Command, kept.Args = c.Command, c.Args
		}
		if proxy {
			kept.Env = c.Env
		}
		if s := c.SecurityContext; s != nil {
			kept.SecurityContext = &corev1.SecurityContext{
				RunAsUser: s.RunAsUser, RunAsGroup: s.RunAsGroup, Privileged: s.Privileged, Capabilities: s.Capabilities,
				AllowPrivilegeEscalation: s.AllowPrivilegeEscalation,
			}
		}
		small = append(small, kept)
	}
	return small
}

package kube

import (
	"maps"
	"slices"

	"github.com/istio-pod-network/controller/internal/podfacts"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// trim returns a copy of the part of a pod that the agent uses. So the memory does not grow with what people write into
// pods. The copy shares only short strings with the pod.
func trim(pod *corev1.Pod) *corev1.Pod {
	small := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
			Labels: redirect.ReadLabels(pod.Labels), Annotations: trimAnnotations(pod.Annotations),
			DeletionTimestamp: pod.DeletionTimestamp,
		},
		Spec: corev1.PodSpec{
			NodeName: pod.Spec.NodeName, HostNetwork: pod.Spec.HostNetwork,
			Containers:     trimContainers(pod.Spec.Containers, false),
			InitContainers: trimContainers(pod.Spec.InitContainers, true),
		},
		Status: corev1.PodStatus{Phase: pod.Status.Phase, StartTime: pod.Status.StartTime},
	}
	if owner := metav1.GetControllerOfNoCopy(pod); owner != nil {
		small.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: word(owner.APIVersion), Kind: word(owner.Kind), Name: word(owner.Name), Controller: owner.Controller,
		}}
	}
	if s := pod.Spec.SecurityContext; s != nil {
		small.Spec.SecurityContext = &corev1.PodSecurityContext{
			RunAsUser: s.RunAsUser, RunAsGroup: s.RunAsGroup, FSGroup: s.FSGroup, SupplementalGroups: s.SupplementalGroups,
		}
	}
	for _, c := range trimContainers(podfacts.Ephemeral(pod), false) {
		small.Spec.EphemeralContainers = append(small.Spec.EphemeralContainers,
			corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon(c)})
	}
	small.Status.PodIPs = pod.Status.PodIPs // the API server allows one address of each family
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReadyToStartContainers {
			small.Status.Conditions = []corev1.PodCondition{
				{Type: c.Type, Status: c.Status, LastTransitionTime: c.LastTransitionTime},
			}
		}
	}
	small.Status.ContainerStatuses = trimStatuses(pod.Status.ContainerStatuses)
	small.Status.EphemeralContainerStatuses = trimStatuses(pod.Status.EphemeralContainerStatuses)
	index := map[string]int{}
	for i, c := range pod.Spec.InitContainers {
		index[c.Name] = i
	}
	for _, c := range pod.Status.InitContainerStatuses {
		i, known := index[c.Name]
		if !known {
			continue
		}
		kept := corev1.ContainerStatus{Name: c.Name}
		if podfacts.IsSidecar(pod.Spec.InitContainers[i]) {
			kept.User = trimUser(c.User)
		}
		if podfacts.IsWait(pod.Spec.InitContainers[i]) {
			kept.State.Running, kept.RestartCount = c.State.Running, c.RestartCount
			if ended := c.State.Terminated; ended != nil {
				kept.State.Terminated = &corev1.ContainerStateTerminated{ExitCode: ended.ExitCode}
			}
		}
		if kept.User != nil || kept.State.Running != nil || kept.State.Terminated != nil || kept.RestartCount > 0 {
			small.Status.InitContainerStatuses = append(small.Status.InitContainerStatuses, kept)
		}
	}
	return small
}

// trimStatuses keeps the containers' names and users.
func trimStatuses(statuses []corev1.ContainerStatus) (small []corev1.ContainerStatus) {
	for _, c := range statuses {
		if user := trimUser(c.User); user != nil {
			small = append(small, corev1.ContainerStatus{Name: c.Name, User: user})
		}
	}
	return small
}

// trimUser keeps the IDs that packet rules could match.
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
		// The agent does not use these of other containers, and they may be large or secret.
		if c.Name == redirect.ProxyContainer {
			kept.Args, kept.Env = words(redirect.ReadArgs(c.Args)), trimEnv(c)
		}
		if init && podfacts.RunsWait(c) {
			kept.Command = []string{podfacts.WaitProgram}
		}
		if s := c.SecurityContext; s != nil {
			kept.SecurityContext = &corev1.SecurityContext{RunAsUser: s.RunAsUser, RunAsGroup: s.RunAsGroup,
				AllowPrivilegeEscalation: s.AllowPrivilegeEscalation,
			}
			if podfacts.IsNetAdmin(c) {
				kept.SecurityContext.Capabilities = &corev1.Capabilities{Add: []corev1.Capability{"NET_ADMIN"}}
			}
		}
		small = append(small, kept)
	}
	return small
}

// trimEnv keeps the variables that are read, each once. One value may be four times as large as all annotations. A long
// setting is kept in its canonical form, without optional spaces and zeros. Any other long value is invalid, and is
// cut.
func trimEnv(c corev1.Container) (small []corev1.EnvVar) {
	values, unresolved := podfacts.Environment(c)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		value := values[name]
		if len(value) > longestWord {
			text, readable := redirect.Canonical(name, value, nil)
			if !readable {
				text = word(value)
			}
			value = text
		}
		small = append(small, corev1.EnvVar{Name: name, Value: value})
	}
	for _, name := range unresolved {
		small = append(small, corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{}})
	}
	return small
}

// trimAnnotations keeps the annotations that are read: for decisions, for the marks, and of static pods.
func trimAnnotations(all map[string]string) map[string]string {
	small := redirect.ReadAnnotations(all)
	for _, key := range []string{
		annotation.Status, annotation.NetNS, annotation.Reason, annotation.Families, KeyConfigHash, annotation.SidecarInject,
		annotation.Initialize, annotation.AmbientRedirection, KeyMirror, keyPartial,
	} {
		if value, present := all[key]; present {
			small[key] = word(value)
		}
	}
	return small
}

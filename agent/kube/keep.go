package kube

import (
	"maps"
	"slices"

	"github.com/istio-pod-network/controller/internal/podfacts"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
)

// Limits of what is kept of one pod, so that the pods of a node fit into the agent's memory, whatever people write into
// them.
const (
	longestWord    = 253      // bytes of a value that is one word or a name; a longer one is invalid
	maxSettings    = 16 << 10 // bytes of all settings in annotations and variables together
	longestSetting = 2 << 10  // bytes of one of them, if all have more than maxSettings
	maxContainers  = 100      // in the pod's specification; half as many ephemeral ones
	maxGroups      = 16       // in a list of supplemental groups; the API has no limit for it
)

// keyPartial is the annotation of a kept pod that is not complete. It has a space, so no real pod can have this
// annotation.
const keyPartial = "istio-pod-network partial"

// IsPartial reports whether the cache has only part of what the plugin needs of the pod. Then the pod has to be read
// from the API server.
func IsPartial(pod *corev1.Pod) bool {
	_, partial := pod.Annotations[keyPartial]
	return partial
}

// keep returns what the cache keeps of a pod: what the agent uses, up to the limits. A pod above the limits still says
// whether it is in the mesh, whether it waits, which marks it has, and which of the kept containers could bypass the
// sidecar: the groups that are compared are kept. gid is the sidecar's group, if the pod sets none.
func keep(pod *corev1.Pod, gid redirect.ID) *corev1.Pod {
	small := trim(pod)
	partial := false
	if len(small.Spec.Containers)+len(small.Spec.InitContainers) > maxContainers ||
		len(small.Spec.EphemeralContainers) > maxContainers/2 {
		partial = true
		keepContainers(small)
	}
	if sizeOfSettings(small) > maxSettings {
		partial = true
		keepSettings(small)
	}
	if keepGroups(small, gid) {
		partial = true
	}
	if partial {
		small.Annotations[keyPartial] = ""
	}
	return small
}

// each calls change for every setting and replaces the value by the result.
func each(pod *corev1.Pod, change func(name, value string) string) {
	for key, value := range pod.Annotations {
		pod.Annotations[key] = change(key, value)
	}
	for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		for i, v := range c.Env {
			c.Env[i].Value = change(v.Name, v.Value)
		}
	}
}

func sizeOfSettings(pod *corev1.Pod) (bytes int) {
	each(pod, func(_, value string) string { bytes += len(value); return value })
	return bytes
}

// keepSettings shortens long settings. An invalid value is cut so that it stays invalid: a warning still names it.
func keepSettings(pod *corev1.Pod) {
	own := groupsOf(pod)
	each(pod, func(name, value string) string {
		if len(value) <= longestWord {
			return value
		}
		text, readable := redirect.Canonical(name, value, func(id redirect.ID) bool { return own[int64(id)] })
		switch {
		case !readable:
			return word(value)
		case len(text) > longestSetting:
			return ""
		}
		return text
	})
}

// groupsOf returns the groups that the pod's containers run in.
func groupsOf(pod *corev1.Pod) map[int64]bool {
	groups := map[int64]bool{}
	note := func(id *int64) {
		if id != nil {
			groups[*id] = true
		}
	}
	if s := pod.Spec.SecurityContext; s != nil {
		note(s.RunAsGroup)
	}
	for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers, podfacts.Ephemeral(pod)) {
		if c.SecurityContext != nil {
			note(c.SecurityContext.RunAsGroup)
		}
	}
	for _, statuses := range statusesIn(pod) {
		for _, s := range *statuses {
			if s.User != nil {
				note(&s.User.Linux.GID)
			}
		}
	}
	return groups
}

func statusesIn(pod *corev1.Pod) []*[]corev1.ContainerStatus {
	s := &pod.Status
	return []*[]corev1.ContainerStatus{&s.ContainerStatuses, &s.InitContainerStatuses, &s.EphemeralContainerStatuses}
}

// keepGroups shortens long lists of supplemental groups to those that the sidecar may run in. It reports whether it
// shortened a list that the plugin needs.
func keepGroups(pod *corev1.Pod, gid redirect.ID) (partial bool) {
	could := map[int64]bool{int64(gid): true}
	if id, err := redirect.ParseID(pod.Annotations[annotation.EnvoyGroupID]); err == nil {
		could[int64(id)] = true
	}
	proxy := corev1.Pod{Spec: corev1.PodSpec{SecurityContext: pod.Spec.SecurityContext}}
	for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		if c.Name == redirect.ProxyContainer {
			proxy.Spec.Containers = append(proxy.Spec.Containers, c)
		}
	}
	maps.Copy(could, groupsOf(&proxy))
	keep := func(groups []int64) []int64 {
		if len(groups) <= maxGroups {
			return groups
		}
		left := map[int64]bool{}
		for _, id := range groups {
			if could[id] {
				left[id] = true
			}
		}
		return slices.Sorted(maps.Keys(left))
	}
	if s := pod.Spec.SecurityContext; s != nil {
		partial = len(s.SupplementalGroups) > maxGroups
		s.SupplementalGroups = keep(s.SupplementalGroups)
	}
	for _, statuses := range statusesIn(pod) {
		for _, s := range *statuses {
			if s.User != nil {
				s.User.Linux.SupplementalGroups = keep(s.User.Linux.SupplementalGroups)
			}
		}
	}
	return partial
}

// keepContainers drops containers above the limits. It keeps those on which a decision depends, and some others,
// because their users may matter.
func keepContainers(pod *corev1.Pod) {
	kept := map[string]bool{}
	wait, _ := podfacts.InitWait(pod)
	first := func(containers []corev1.Container) []corev1.Container {
		var some []corev1.Container
		for _, c := range containers {
			special := c.Name == redirect.ProxyContainer || c.Name == redirect.InitContainer || c.Name == wait
			if special || len(some) < maxContainers/2 {
				some, kept[c.Name] = append(some, c), true
			}
		}
		return some
	}
	pod.Spec.Containers, pod.Spec.InitContainers = first(pod.Spec.Containers), first(pod.Spec.InitContainers)
	pod.Spec.EphemeralContainers = slices.Clone(
		pod.Spec.EphemeralContainers[:min(len(pod.Spec.EphemeralContainers), maxContainers/2)])
	for _, c := range pod.Spec.EphemeralContainers {
		kept[c.Name] = true
	}
	for _, statuses := range statusesIn(pod) {
		*statuses = statusesOf(kept, *statuses)
	}
}

func statusesOf(containers map[string]bool, statuses []corev1.ContainerStatus) (their []corev1.ContainerStatus) {
	for _, s := range statuses {
		if containers[s.Name] {
			their = append(their, s)
		}
	}
	return their
}

// word shortens a text that is too long for a word. The result is not a valid word, name or setting either.
func word(text string) string {
	if len(text) <= longestWord {
		return text
	}
	return text[:longestWord] + "…"
}

func words(texts []string) []string {
	for i := range texts {
		texts[i] = word(texts[i])
	}
	return texts
}

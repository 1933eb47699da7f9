package scc

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// allocated returns constraints whose missing ranges and SELinux level come from the namespace's annotations.
func (c Constraints) allocated(namespace map[string]string) (Constraints, error) {
	users, err := block(KeyUsers, namespace[KeyUsers])
	if err != nil {
		return c, err
	}
	if c.RunAsUser.Type == mustRunAsRange && c.RunAsUser.UIDRangeMin == nil && c.RunAsUser.UIDRangeMax == nil {
		c.RunAsUser.UIDRangeMin, c.RunAsUser.UIDRangeMax = &users.Min, &users.Max
	}
	groups := []Range{users}
	if text, ok := namespace[KeyGroups]; ok {
		groups = nil
		for part := range strings.SplitSeq(text, ",") {
			r, err := block(KeyGroups, part)
			if err != nil {
				return c, err
			}
			groups = append(groups, r)
		}
	}
	if c.FSGroup.Type == mustRunAs && len(c.FSGroup.Ranges) == 0 {
		c.FSGroup.Ranges = []Range{{groups[0].Min, groups[0].Min}}
	}
	if c.SupplementalGroups.Type == mustRunAs && len(c.SupplementalGroups.Ranges) == 0 {
		c.SupplementalGroups.Ranges = groups
	}
	if c.SELinuxContext.Type == mustRunAs {
		if namespace[KeyLevel] == "" {
			return c, fmt.Errorf("unable to find annotation %s", KeyLevel)
		}
		options := corev1.SELinuxOptions{}
		if c.SELinuxContext.SELinuxOptions != nil {
			options = *c.SELinuxContext.SELinuxOptions
		}
		options.Level = cmp.Or(options.Level, namespace[KeyLevel])
		c.SELinuxContext.SELinuxOptions = &options
	}
	return c, nil
}

// block parses a range of a namespace's annotation: first/count or first-last.
func block(key, text string) (Range, error) {
	first, second, counted := strings.Cut(text, "/")
	if !counted {
		first, second, _ = strings.Cut(text, "-")
	}
	start, err := strconv.ParseInt(first, 10, 64)
	end, err2 := strconv.ParseInt(second, 10, 64)
	if err = cmp.Or(err, err2); err != nil {
		return Range{}, fmt.Errorf("%s: invalid value %q; valid: first/count or first-last", key, text)
	}
	if counted {
		end += start - 1
	}
	return Range{start, end}, nil
}

// each calls do for every container of a pod. where is the container's field path.
func each(pod *corev1.Pod, do func(where string, container *corev1.Container)) {
	for i := range pod.Spec.InitContainers {
		do(fmt.Sprintf("spec.initContainers[%d]", i), &pod.Spec.InitContainers[i])
	}
	for i := range pod.Spec.Containers {
		do(fmt.Sprintf("spec.containers[%d]", i), &pod.Spec.Containers[i])
	}
}

// fillIn sets the fields that the pod does not set.
func (c Constraints) fillIn(pod *corev1.Pod) {
	if pod.Spec.SecurityContext == nil {
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{}
	}
	s := pod.Spec.SecurityContext
	if s.SupplementalGroups == nil && c.SupplementalGroups.Type == mustRunAs {
		s.SupplementalGroups = []int64{c.SupplementalGroups.Ranges[0].Min}
	}
	if s.FSGroup == nil && c.FSGroup.Type == mustRunAs {
		s.FSGroup = &c.FSGroup.Ranges[0].Min
	}
	if s.SELinuxOptions == nil && c.SELinuxContext.Type == mustRunAs {
		s.SELinuxOptions = c.SELinuxContext.SELinuxOptions
	}
	if s.SeccompProfile == nil && slices.Contains(c.SeccompProfiles, "runtime/default") {
		s.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
	}
	each(pod, func(_ string, container *corev1.Container) {
		if container.SecurityContext == nil {
			container.SecurityContext = &corev1.SecurityContext{}
		}
		c.fillInContainer(s, container.SecurityContext)
	})
}

func (c Constraints) fillInContainer(pod *corev1.PodSecurityContext, s *corev1.SecurityContext) {
	yes := true
	if cmp.Or(s.RunAsUser, pod.RunAsUser) == nil {
		switch c.RunAsUser.Type {
		case mustRunAsRange:
			s.RunAsUser = c.RunAsUser.UIDRangeMin
		case mustRunAs:
			s.RunAsUser = c.RunAsUser.UID
		}
	}
	if cmp.Or(s.RunAsGroup, pod.RunAsGroup) == nil && len(c.RunAsGroup.Ranges) > 0 {
		s.RunAsGroup = &c.RunAsGroup.Ranges[0].Min
	}
	if user := cmp.Or(s.RunAsUser, pod.RunAsUser); cmp.Or(s.RunAsNonRoot, pod.RunAsNonRoot) == nil &&
		(user == nil && c.RunAsUser.Type == nonRoot || user != nil && *user > 0) {
		s.RunAsNonRoot = &yes
	}
	capabilities := corev1.Capabilities{}
	if s.Capabilities != nil {
		capabilities = *s.Capabilities
	}
	add := union(capabilities.Add, slices.DeleteFunc(slices.Clone(c.DefaultAddCapabilities),
		func(x corev1.Capability) bool {
			return slices.Contains(capabilities.Drop, x)
		}))
	drop := union(capabilities.Drop, c.RequiredDropCapabilities)
	if len(add) > len(capabilities.Add) || len(drop) > len(capabilities.Drop) {
		s.Capabilities = &corev1.Capabilities{Add: add, Drop: drop}
	}
	if c.ReadOnlyRootFilesystem && s.ReadOnlyRootFilesystem == nil {
		s.ReadOnlyRootFilesystem = &yes
	}
	if s.AllowPrivilegeEscalation == nil {
		privileged := s.Privileged != nil && *s.Privileged || slices.Contains(add, "CAP_SYS_ADMIN")
		if c.DefaultAllowPrivilegeEscalation != nil && !privileged {
			s.AllowPrivilegeEscalation = c.DefaultAllowPrivilegeEscalation
		} else if c.AllowPrivilegeEscalation != nil && !*c.AllowPrivilegeEscalation {
			s.AllowPrivilegeEscalation = c.AllowPrivilegeEscalation
		}
	}
}

// union returns a, followed by the elements of b that are not in a.
func union(a, b []corev1.Capability) []corev1.Capability {
	all := slices.Clone(a)
	for _, x := range b {
		if !slices.Contains(all, x) {
			all = append(all, x)
		}
	}
	return all
}

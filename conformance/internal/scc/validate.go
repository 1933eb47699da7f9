package scc

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// validate returns the fields of a pod that the constraints do not allow.
func (c Constraints) validate(pod *corev1.Pod) (refused []string) {
	no := func(bad bool, field string, value any) {
		if bad {
			text, _ := json.Marshal(value)
			refused = append(refused, fmt.Sprintf("%s: %s is not allowed", field, text))
		}
	}
	s := pod.Spec.SecurityContext
	no(!c.FSGroup.allow(s.FSGroup), "spec.securityContext.fsGroup", s.FSGroup)
	if len(s.SupplementalGroups) == 0 {
		no(!c.SupplementalGroups.allow(nil), "spec.securityContext.supplementalGroups", nil)
	}
	for _, group := range s.SupplementalGroups {
		no(!c.SupplementalGroups.allow(&group), "spec.securityContext.supplementalGroups", group)
	}
	no(!c.allowsSeccomp(s.SeccompProfile), "spec.securityContext.seccompProfile", s.SeccompProfile)
	no(!c.allowsSELinux(s.SELinuxOptions), "spec.securityContext.seLinuxOptions", s.SELinuxOptions)
	no(pod.Spec.HostNetwork && !c.AllowHostNetwork, "spec.hostNetwork", true)
	no(pod.Spec.HostPID && !c.AllowHostPID, "spec.hostPID", true)
	no(pod.Spec.HostIPC && !c.AllowHostIPC, "spec.hostIPC", true)
	no(c.UserNamespaceLevel == "RequirePodLevel" && (pod.Spec.HostUsers == nil || *pod.Spec.HostUsers), "spec.hostUsers",
		pod.Spec.HostUsers)
	for _, sysctl := range s.Sysctls {
		no(!slices.Contains(safeSysctls, sysctl.Name), "spec.securityContext.sysctls", sysctl)
	}
	for i, v := range pod.Spec.Volumes {
		kind := kindOf(v)
		no(!slices.Contains(c.Volumes, kind) && !slices.Contains(c.Volumes, "*"), fmt.Sprintf("spec.volumes[%d]", i), kind)
	}
	each(pod, func(where string, container *corev1.Container) {
		c.validateContainer(s, container, func(bad bool, field string, value any) { no(bad, where+"."+field, value) })
	})
	return refused
}

// safeSysctls are the sysctls that every constraint allows, because they only concern the pod itself.
var safeSysctls = []string{"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies",
	"net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start", "net.ipv4.tcp_keepalive_time",
	"net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes"}

func (c Constraints) validateContainer(pod *corev1.PodSecurityContext, container *corev1.Container,
	no func(bad bool, field string, value any)) {
	s := container.SecurityContext
	user, must := cmp.Or(s.RunAsUser, pod.RunAsUser), cmp.Or(s.RunAsNonRoot, pod.RunAsNonRoot)
	no(!c.allowsUser(user, must), "securityContext.runAsUser", user)
	group := cmp.Or(s.RunAsGroup, pod.RunAsGroup)
	no(!c.RunAsGroup.allow(group), "securityContext.runAsGroup", group)
	profile := cmp.Or(s.SeccompProfile, pod.SeccompProfile)
	no(!c.allowsSeccomp(profile), "securityContext.seccompProfile", profile)
	options := cmp.Or(s.SELinuxOptions, pod.SELinuxOptions)
	no(!c.allowsSELinux(options), "securityContext.seLinuxOptions", options)
	no(s.Privileged != nil && *s.Privileged && !c.AllowPrivilegedContainer, "securityContext.privileged", true)
	if !slices.Contains(c.AllowedCapabilities, "*") {
		capabilities := corev1.Capabilities{}
		if s.Capabilities != nil {
			capabilities = *s.Capabilities
		}
		for _, x := range capabilities.Add {
			no(!slices.Contains(union(c.AllowedCapabilities, c.DefaultAddCapabilities), x), "securityContext.capabilities.add",
				x)
		}
		for _, x := range c.RequiredDropCapabilities {
			no(!slices.Contains(capabilities.Drop, x), "securityContext.capabilities.drop", capabilities.Drop)
		}
	}
	for _, port := range container.Ports {
		no(port.HostPort > 0 && !c.AllowHostPorts, "ports.hostPort", port.HostPort)
	}
	no(c.ReadOnlyRootFilesystem && (s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem),
		"securityContext.readOnlyRootFilesystem", s.ReadOnlyRootFilesystem)
	no(c.AllowPrivilegeEscalation != nil && !*c.AllowPrivilegeEscalation &&
		(s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation),
		"securityContext.allowPrivilegeEscalation", s.AllowPrivilegeEscalation)
}

func (c Constraints) allowsUser(user *int64, must *bool) bool {
	switch c.RunAsUser.Type {
	case mustRunAsRange:
		return user != nil && Range{*c.RunAsUser.UIDRangeMin, *c.RunAsUser.UIDRangeMax}.holds(*user)
	case mustRunAs:
		return user != nil && *user == *c.RunAsUser.UID
	case nonRoot:
		return (user != nil || must != nil) && (must == nil || *must) && (user == nil || *user != 0)
	}
	return true
}

// allow reports whether a group is allowed. nil is no group.
func (g Groups) allow(group *int64) bool {
	if g.Type != mustRunAs && g.Type != mustRunAsRange {
		return true
	}
	return group != nil && slices.ContainsFunc(g.Ranges, func(r Range) bool { return r.holds(*group) })
}

func (c Constraints) allowsSeccomp(profile *corev1.SeccompProfile) bool {
	name := ""
	if profile != nil {
		name = map[corev1.SeccompProfileType]string{
			corev1.SeccompProfileTypeRuntimeDefault: "runtime/default", corev1.SeccompProfileTypeUnconfined: "unconfined",
		}[profile.Type]
		if profile.LocalhostProfile != nil {
			name = "localhost/" + *profile.LocalhostProfile
		}
	}
	return slices.Contains(c.SeccompProfiles, "*") || slices.Contains(c.SeccompProfiles, name) ||
		len(c.SeccompProfiles) == 0 && name == ""
}

func (c Constraints) allowsSELinux(options *corev1.SELinuxOptions) bool {
	return c.SELinuxContext.Type != mustRunAs || options != nil && *options == *c.SELinuxContext.SELinuxOptions
}

// kindOf returns the name of a volume's source, as in SecurityContextConstraints.volumes.
func kindOf(v corev1.Volume) string {
	data, _ := json.Marshal(v.VolumeSource)
	var source map[string]json.RawMessage
	_ = json.Unmarshal(data, &source)
	for kind := range source {
		return kind
	}
	return "emptyDir" // the API server's default
}

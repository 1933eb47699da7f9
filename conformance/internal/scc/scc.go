// Package scc decides about a pod as OpenShift's admission of SecurityContextConstraints does, of which no Go module can be had: constraints
// fill in what a pod leaves open, and then admit or refuse it. The rules are those that openshift/apiserver-library-go
// (pkg/securitycontextconstraints) publishes, without the parts that no pod of these tests touches: flex volumes, sysctls (a pod that has any is
// refused here), ephemeral containers and the annotations that once were seccomp's.
package scc

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// Annotations of a namespace, of a pod that wants certain constraints, and of one that was admitted by some.
const (
	KeyUsers    = "openshift.io/sa.scc.uid-range"           // of a namespace: first/count, such as 1000660000/10000, or first-last
	KeyGroups   = "openshift.io/sa.scc.supplemental-groups" // of a namespace: some of those, after commas; absent: the users'
	KeyLevel    = "openshift.io/sa.scc.mcs"                 // of a namespace: an SELinux level such as s0:c26,c5
	KeyRequired = "openshift.io/required-scc"
	KeyAdmitted = "openshift.io/scc"
)

// The strategies.
const (
	runAsAny       = "RunAsAny"
	mustRunAs      = "MustRunAs"
	mustRunAsRange = "MustRunAsRange"
	nonRoot        = "MustRunAsNonRoot"
)

// Constraints are an object SecurityContextConstraints of security.openshift.io/v1.
type Constraints struct {
	Metadata struct{ Name string }
	Priority *int32

	AllowHostNetwork, AllowHostPID, AllowHostIPC, AllowHostPorts bool
	AllowPrivilegedContainer, ReadOnlyRootFilesystem             bool
	AllowPrivilegeEscalation, DefaultAllowPrivilegeEscalation    *bool

	AllowedCapabilities, DefaultAddCapabilities, RequiredDropCapabilities []corev1.Capability

	Volumes, SeccompProfiles []string
	UserNamespaceLevel       string
	RunAsUser                Users
	RunAsGroup               Groups
	FSGroup                  Groups
	SupplementalGroups       Groups
	SELinuxContext           struct {
		Type           string
		SELinuxOptions *corev1.SELinuxOptions
	}
}

// Users says as which users containers may run.
type Users struct {
	Type                          string
	UID, UIDRangeMin, UIDRangeMax *int64
}

// Groups says which groups there may be.
type Groups struct {
	Type   string
	Ranges []Range
}

// Range is a range of IDs with both its ends.
type Range struct{ Min, Max int64 }

func (r Range) holds(id int64) bool { return r.Min <= id && id <= r.Max }

// Admit is what becomes of a pod that is made in a namespace with those annotations: it is admitted by the first of all constraints, in their
// order, that may be used and that it fits, once they have filled in what it leaves open. final says that it is not for changing any more, since
// all of admission has seen it. The error lists why each of the constraints does not admit it.
func Admit(pod *corev1.Pod, namespace map[string]string, all []Constraints, mayUse func(name string) bool, final bool) (*corev1.Pod, error) {
	sorted := slices.SortedFunc(slices.Values(all), compare)
	if name, required := pod.Annotations[KeyRequired]; required {
		sorted = slices.DeleteFunc(sorted, func(c Constraints) bool { return c.Metadata.Name != name })
		if len(sorted) == 0 {
			return nil, fmt.Errorf("failed to retrieve the required SCC %q", name)
		}
	}
	var reasons []string
	for _, c := range sorted {
		if !mayUse(c.Metadata.Name) {
			reasons = append(reasons, fmt.Sprintf("%s: not usable by user or serviceaccount", c.Metadata.Name))
			continue
		}
		c, err := c.allocated(namespace)
		if err != nil {
			return nil, err
		}
		admitted := pod.DeepCopy()
		c.fillIn(admitted)
		refused := c.judge(admitted)
		if final && !equality.Semantic.DeepEqual(admitted.Spec, pod.Spec) {
			refused = append(refused, "would have to change the pod")
		}
		if len(refused) > 0 {
			reasons = append(reasons, c.Metadata.Name+": "+strings.Join(refused, ", "))
			continue
		}
		if !final {
			admitted.Annotations = maps.Clone(admitted.Annotations)
			if admitted.Annotations == nil {
				admitted.Annotations = map[string]string{}
			}
			admitted.Annotations[KeyAdmitted] = c.Metadata.Name
		}
		return admitted, nil
	}
	return nil, fmt.Errorf("unable to validate against any security context constraint: %s", strings.Join(reasons, "; "))
}

// compare puts constraints into the order in which they are tried: by priority, then the more restrictive ones first, then by name.
func compare(a, b Constraints) int {
	priority := func(c Constraints) int32 {
		if c.Priority == nil {
			return 0
		}
		return *c.Priority
	}
	return cmp.Or(cmp.Compare(priority(b), priority(a)), cmp.Compare(a.points(), b.points()), cmp.Compare(a.Metadata.Name, b.Metadata.Name))
}

// points say how little constraints restrict (util/sort/byrestrictions.go).
func (c Constraints) points() (points int) {
	if c.AllowPrivilegedContainer {
		points += 1000000
	}
	trivial := []string{"secret", "configMap", "emptyDir", "downwardAPI", "projected", "none"}
	switch {
	case slices.Contains(c.Volumes, "hostPath") || slices.Contains(c.Volumes, "*"):
		points += 100000
	case slices.ContainsFunc(c.Volumes, func(v string) bool { return !slices.Contains(trivial, v) }):
		points += 50000
	}
	if c.AllowHostNetwork {
		points += 200000
	}
	if c.AllowHostPorts {
		points += 400000
	}
	capabilities := 5000 + 300*len(c.DefaultAddCapabilities)
	if slices.Contains(c.AllowedCapabilities, "*") || slices.Contains(c.AllowedCapabilities, "ALL") {
		capabilities += 4000
	} else {
		capabilities += 10 * len(c.AllowedCapabilities)
	}
	if slices.Contains(c.RequiredDropCapabilities, "ALL") {
		capabilities -= 3000
	} else {
		capabilities -= 50 * len(c.RequiredDropCapabilities)
	}
	points += min(max(capabilities, 0), 9999)
	strategies := map[string]int{runAsAny: 40000, nonRoot: 30000, mustRunAsRange: 20000, mustRunAs: 10000}
	return points + strategies[c.SELinuxContext.Type] + strategies[c.RunAsUser.Type]
}

// allocated completes constraints by what the namespace was given.
func (c Constraints) allocated(namespace map[string]string) (Constraints, error) {
	users, err := block(KeyUsers, namespace[KeyUsers])
	if err != nil {
		return c, err
	}
	if c.RunAsUser.Type == mustRunAsRange && c.RunAsUser.UIDRangeMin == nil && c.RunAsUser.UIDRangeMax == nil {
		c.RunAsUser.UIDRangeMin, c.RunAsUser.UIDRangeMax = &users.Min, &users.Max
	}
	groups := []Range{users}
	if text, said := namespace[KeyGroups]; said {
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

// block reads a range of a namespace.
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

// each are all containers of a pod, with where they are.
func each(pod *corev1.Pod, do func(where string, container *corev1.Container)) {
	for i := range pod.Spec.InitContainers {
		do(fmt.Sprintf("spec.initContainers[%d]", i), &pod.Spec.InitContainers[i])
	}
	for i := range pod.Spec.Containers {
		do(fmt.Sprintf("spec.containers[%d]", i), &pod.Spec.Containers[i])
	}
}

// fillIn sets what the pod leaves open.
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
	add := union(capabilities.Add, slices.DeleteFunc(slices.Clone(c.DefaultAddCapabilities), func(x corev1.Capability) bool {
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

// union is one list with what the other has beside it.
func union(a, b []corev1.Capability) []corev1.Capability {
	all := slices.Clone(a)
	for _, x := range b {
		if !slices.Contains(all, x) {
			all = append(all, x)
		}
	}
	return all
}

// judge returns what of a pod the constraints do not allow.
func (c Constraints) judge(pod *corev1.Pod) (refused []string) {
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
	no(c.UserNamespaceLevel == "RequirePodLevel" && (pod.Spec.HostUsers == nil || *pod.Spec.HostUsers), "spec.hostUsers", pod.Spec.HostUsers)
	no(len(s.Sysctls) > 0, "spec.securityContext.sysctls", s.Sysctls)
	for i, v := range pod.Spec.Volumes {
		kind := kindOf(v)
		no(!slices.Contains(c.Volumes, kind) && !slices.Contains(c.Volumes, "*"), fmt.Sprintf("spec.volumes[%d]", i), kind)
	}
	each(pod, func(where string, container *corev1.Container) {
		c.judgeContainer(s, container, func(bad bool, field string, value any) { no(bad, where+"."+field, value) })
	})
	return refused
}

func (c Constraints) judgeContainer(pod *corev1.PodSecurityContext, container *corev1.Container, no func(bad bool, field string, value any)) {
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
			no(!slices.Contains(union(c.AllowedCapabilities, c.DefaultAddCapabilities), x), "securityContext.capabilities.add", x)
		}
		for _, x := range c.RequiredDropCapabilities {
			no(!slices.Contains(capabilities.Drop, x), "securityContext.capabilities.drop", capabilities.Drop)
		}
	}
	for _, port := range container.Ports {
		no(port.HostPort > 0 && !c.AllowHostPorts, "ports.hostPort", port.HostPort)
	}
	no(c.ReadOnlyRootFilesystem && (s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem), "securityContext.readOnlyRootFilesystem", s.ReadOnlyRootFilesystem)
	no(c.AllowPrivilegeEscalation != nil && !*c.AllowPrivilegeEscalation && (s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation),
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

// allow reports whether there may be that group, nil for none.
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
	return slices.Contains(c.SeccompProfiles, "*") || slices.Contains(c.SeccompProfiles, name) || len(c.SeccompProfiles) == 0 && name == ""
}

func (c Constraints) allowsSELinux(options *corev1.SELinuxOptions) bool {
	return c.SELinuxContext.Type != mustRunAs || options != nil && *options == *c.SELinuxContext.SELinuxOptions
}

// kindOf is the name of a volume's source, by which constraints know it.
func kindOf(v corev1.Volume) string {
	data, _ := json.Marshal(v.VolumeSource)
	var source map[string]json.RawMessage
	_ = json.Unmarshal(data, &source)
	for kind := range source {
		return kind
	}
	return "emptyDir" // what no source means
}

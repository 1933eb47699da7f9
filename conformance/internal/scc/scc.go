// Package scc implements OpenShift's admission by SecurityContextConstraints, which is not available as a Go module.
// Constraints set the fields that a pod does not set, and then admit or reject it. The rules are those of
// openshift/apiserver-library-go (pkg/securitycontextconstraints), without what no pod of these tests uses: flex
// volumes, unsafe sysctls (a pod that has one is rejected), ephemeral containers and the old seccomp annotations.
package scc

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// OpenShift's annotations: three of a namespace, then KeyRequired of a pod, and KeyAdmitted, which admission adds.
const (
	// a range, first/count, such as 1000660000/10000, or first-last
	KeyUsers = "openshift.io/sa.scc.uid-range"
	// such ranges, separated by commas; if absent, the range of users
	KeyGroups   = "openshift.io/sa.scc.supplemental-groups"
	KeyLevel    = "openshift.io/sa.scc.mcs" // an SELinux level such as s0:c26,c5
	KeyRequired = "openshift.io/required-scc"
	KeyAdmitted = "openshift.io/scc"
)

// Strategies of users, groups and SELinux contexts.
const (
	runAsAny       = "RunAsAny"
	mustRunAs      = "MustRunAs"
	mustRunAsRange = "MustRunAsRange"
	nonRoot        = "MustRunAsNonRoot"
)

// Constraints is an object SecurityContextConstraints of security.openshift.io/v1.
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

// Users restricts the user IDs of containers.
type Users struct {
	Type                          string
	UID, UIDRangeMin, UIDRangeMax *int64
}

// Groups restricts group IDs.
type Groups struct {
	Type   string
	Ranges []Range
}

// Range is a range of IDs. Both ends are included.
type Range struct{ Min, Max int64 }

func (r Range) holds(id int64) bool { return r.Min <= id && id <= r.Max }

// Admit decides about a pod in a namespace with those annotations. It tries the constraints that mayUse allows, in
// OpenShift's order, and returns the pod as completed by the first one that admits it. If final is true, constraints
// may not change the pod, as at the end of admission. The error says for each of the constraints why they do not admit
// the pod.
func Admit(pod *corev1.Pod, namespace map[string]string, all []Constraints, mayUse func(name string) bool,
	final bool) (*corev1.Pod, error) {
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
		refused := c.validate(admitted)
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

// compare sorts constraints in the order in which they are tried: higher priority first, then more restrictive ones,
// then by name.
func compare(a, b Constraints) int {
	priority := func(c Constraints) int32 {
		if c.Priority == nil {
			return 0
		}
		return *c.Priority
	}
	return cmp.Or(cmp.Compare(priority(b), priority(a)), cmp.Compare(a.points(), b.points()),
		cmp.Compare(a.Metadata.Name, b.Metadata.Name))
}

// points returns a score: the higher it is, the less the constraints restrict (util/sort/byrestrictions.go).
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
